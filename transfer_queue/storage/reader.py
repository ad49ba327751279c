"""Reading what producers on this machine wrote: their segments mapped read-only, rows gathered into private memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldLostError
from transfer_queue.storage.buffers import POOLED_FROM, BufferPool
from transfer_queue.storage.extents import joined

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]


class Reader:
    """Maps a segment when something in it is read first, and keeps it until told to forget it. Threads may share it.

    `path_of(segment)` is asked once per mapping. A file that is gone or too short is a `FieldLostError`, never a
    SIGBUS: producers neither shrink their files nor let them have holes, and lengths are checked before anything is
    touched.
    """

    def __init__(self, path_of: Callable[[int], str | Path]) -> None:
        self._path_of = path_of
        self._mapped: dict[int, Bytes] = {}
        self._pool = BufferPool()

    def gather(self, rows: Rows) -> Bytes:
        """The bytes of all rows (n, 3: segment, offset, size) one after the other, private and writable."""
        rows = np.asarray(rows, np.int64).reshape(-1, 3)
        if not len(rows):
            return np.empty(0, np.uint8)
        size = int(rows[0, 2])
        if 0 < size * len(rows) < POOLED_FROM and (rows[:, ::2] == rows[0, ::2]).all():
            return _indexed(self._source(int(rows[0, 0]), rows), rows[:, 1], size)
        return self._copied(rows)

    def _copied(self, rows: Rows) -> Bytes:
        filled = rows[rows[:, 2] != 0]
        sources = {segment: self._source(segment, filled) for segment in np.unique(filled[:, 0]).tolist()}
        result = self._pool.take(int(filled[:, 2].sum()))
        if len(result) < POOLED_FROM:
            _copy_small(sources, filled, result)
            return result
        at = 0
        for segment, offset, size in joined(filled):  # numpy lets other threads run while it copies
            result[at : at + size] = sources[segment][offset : offset + size]
            at += size
        return result

    def view(self, segment: int, offset: int, size: int) -> Bytes:
        """The bytes themselves, read-only, alive as long as the array; a write through a tensor made of it is fatal."""
        row = np.array([[segment, offset, size]])
        return self._source(segment, row)[offset : offset + size] if size else np.empty(0, np.uint8)

    def forget(self, segment: int) -> None:
        """Let go of a segment; views of it stay whole."""
        self._mapped.pop(segment, None)

    def _source(self, segment: int, rows: Rows) -> Bytes:
        """The segment's bytes, long enough for those of the rows that lie in it."""
        source = self._mapped.get(segment)
        if source is None:
            source = self._mapped.setdefault(segment, _map(segment, Path(self._path_of(segment))))
        _, offsets, sizes = rows.T if (rows[:, 0] == segment).all() else rows[rows[:, 0] == segment].T
        if offsets.min() < 0 or sizes.min() < 0 or (offsets + sizes).max() > len(source):
            raise FieldLostError(_outside(segment, offsets, sizes, len(source)))
        return source


def _map(segment: int, path: Path) -> Bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FieldLostError(f"segment {segment} cannot be read: {path}: {error.strerror}") from error
    try:
        size = os.fstat(descriptor).st_size
        return np.frombuffer(mmap.mmap(descriptor, size, prot=mmap.PROT_READ), np.uint8) if size else _NOTHING
    finally:
        os.close(descriptor)


def _outside(segment: int, offsets: NDArray[np.int64], sizes: NDArray[np.int64], length: int) -> str:
    wrong = np.flatnonzero((offsets < 0) | (sizes < 0) | (offsets + sizes > length))[0]
    return f"segment {segment} has {length} bytes, not the {sizes[wrong]} at {offsets[wrong]}: its file was cut"


def _indexed(source: Bytes, offsets: NDArray[np.int64], size: int) -> Bytes:
    """Rows of one size from one segment: every place of the segment as the start of a row, indexed by offsets."""
    starts: Any = np.ndarray((len(source) - size + 1, size), np.uint8, source, strides=(1, 1))
    result: Bytes = starts[offsets].reshape(-1)
    return result


def _copy_small(sources: dict[int, Bytes], rows: Rows, result: Bytes) -> None:
    """Copy with memoryviews, which cost half of what slices of arrays do."""
    views = {segment: source.data for segment, source in sources.items()}
    target = result.data
    at = 0
    for segment, offset, size in joined(rows):
        target[at : at + size] = views[segment][offset : offset + size]
        at += size


_NOTHING: Bytes = np.empty(0, np.uint8)
