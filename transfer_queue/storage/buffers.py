"""Large private buffers that are used again: the first touch of fresh memory costs more than copying into it does."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

POOLED_FROM = 8 * 2**20
"""Smaller buffers come from malloc, which keeps what was freed."""
IDLE_BYTES = 512 * 2**20
"""What a pool keeps for later, at most."""


class BufferPool:
    """Gives writable arrays; the memory of one returns when the array and everything made of it are gone.

    Needs no lock, and must not have one: memory returns from the garbage collector, which may run anywhere.
    """

    def __init__(self, idle_bytes: int = IDLE_BYTES) -> None:
        self._most = idle_bytes
        self._idle: deque[mmap.mmap] = deque()

    @property
    def idle_bytes(self) -> int:
        """Bytes kept for later."""
        return sum(map(len, list(self._idle)))

    def take(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes of whatever was there before; nobody else has them."""
        if size < POOLED_FROM:
            return np.empty(size, np.uint8)
        block = self._find(size) or _fresh(size)
        # Watched is this lease and not the array: whatever is made of the array, by whatever way, holds the lease.
        lease = (ctypes.c_ubyte * len(block)).from_buffer(block)
        weakref.finalize(lease, self._give_back, block).atexit = False
        return np.frombuffer(memoryview(lease), np.uint8, size)

    def _find(self, size: int) -> mmap.mmap | None:
        """The smallest idle block that is large enough and not twice as large."""
        for block in sorted(self._idle, key=len):
            if size <= len(block) <= 2 * size:
                with contextlib.suppress(ValueError):  # another thread was faster
                    self._idle.remove(block)
                    return block
        return None

    def _give_back(self, block: mmap.mmap) -> None:
        self._idle.append(block)
        while self.idle_bytes > self._most:
            with contextlib.suppress(IndexError):
                self._idle.popleft()


def _fresh(size: int) -> mmap.mmap:
    """A private block, its size rounded up by an eighth at most so that nearly equal results share blocks."""
    step = 1 << max(size.bit_length() - 4, 12)
    block = mmap.mmap(-1, -(-size // step) * step, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
