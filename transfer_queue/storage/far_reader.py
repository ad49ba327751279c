"""Reading segments of any kind, for clients that reach nothing but the controller, and for checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from transfer_queue.storage.place import is_actor
from transfer_queue.storage.reader import Reader
from transfer_queue.wire import Frame

if TYPE_CHECKING:
    from transfer_queue.storage.ray_reader import Fetched

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
Column = tuple[bytes, bytes | None]
"""The values of a field that lie in the controller, and for the others where each row lies."""


class FarReader:
    """One read: `paths` says where each segment lies. `FieldLostError` if one of them is gone."""

    def __init__(self, paths: Mapping[int, str]) -> None:
        self._paths = paths
        self._files = Reader(paths.__getitem__)
        self._fetched: Fetched | None = None

    def read(self, columns: Sequence[Column], timeout_s: float) -> list[Frame]:
        """The values of each column, row after row."""
        placed = [_rows(places) for _, places in columns if places is not None]
        self.fetch(np.concatenate(placed), timeout_s)
        return [here if places is None else self._gather(_rows(places), here) for here, places in columns]

    def fetch(self, rows: Rows, timeout_s: float) -> None:
        """Make ready what of these rows (n, 3: segment, offset, size) lies in storage actors."""
        actors = [number for number, path in self._paths.items() if is_actor(path)]
        rows = rows[np.isin(rows[:, 0], actors) & (rows[:, 2] > 0)]
        if len(rows):
            from transfer_queue.storage.ray_reader import RayReader

            self._fetched = RayReader(self._paths.__getitem__).fetch(rows, time.monotonic() + timeout_s)

    def view(self, segment: int, offset: int, size: int) -> Bytes:
        """The bytes themselves, read-only; those of a storage actor were fetched before."""
        if size and self._fetched is not None and is_actor(self._paths[segment]):
            return self._fetched.view(segment, offset, size)
        return self._files.view(segment, offset, size)

    def _gather(self, rows: Rows, here: bytes) -> Frame:
        result, at = memoryview(bytearray(int(rows[:, 2].sum()))), 0
        for segment, offset, size in rows.tolist():
            there = segment >= 0
            result[at : at + size] = self.view(segment, offset, size).data if there else here[offset : offset + size]
            at += size
        return result


def _rows(places: bytes) -> Rows:
    return np.frombuffer(places, dtype=np.int64).reshape(-1, 3)
