"""Rows whose every byte is checked: each begins with its number, and the rest follows from the number."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch

WORD = 8
_STEP = 0x9E3779B97F4A7C15


def rows(first: int, count: int, size: int) -> torch.Tensor:
    """int64[count, size / 8]: rows number `first`, `first + 1`, ...; no two rows have a word in common."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    words = np.random.default_rng(size).integers(0, 2**63, size // WORD, dtype=np.uint64)
    table = words[None, :] ^ (numbers * np.uint64(_STEP))[:, None]
    table[:, 0] = numbers
    return torch.from_numpy(table.view(np.int64))


def checksums(values: Iterable[torch.Tensor]) -> dict[int, int]:
    """Checksum of each row by its number, over all its bytes."""
    return {int(row[0]): zlib.crc32(np.ascontiguousarray(row.numpy())) for row in values}


def check(got: Iterable[torch.Tensor], put: dict[int, int]) -> None:
    """Raise unless the rows got are those put, each once and with every byte."""
    returned = list(got)
    if len(returned) != len(put):
        raise AssertionError(f"{len(returned)} rows came back, {len(put)} were put")
    if checksums(returned) != put:
        raise AssertionError("rows came back with other bytes than were put, or some twice")


def numbers(got: Iterable[torch.Tensor]) -> list[int]:
    """The number of each row, in the order in which they came."""
    return [int(row[0]) for row in got]


def total(values: torch.Tensor) -> int:
    """The sum over all words, which touches every byte; overflow wraps, the same on both sides.

    The peer gives a nested tensor where rows were put one at a time; its values lie in one piece.
    """
    return int((values.values() if values.is_nested else values).sum())
