"""The addresses of one storage actor: what was put lies at the next free ones, block after block, and none comes twice.

Pure bookkeeping. A block is one object of Ray's store; it goes when all of its bytes are free.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from transfer_queue.errors import ExtentError

ThingT = TypeVar("ThingT")


@dataclass(slots=True)
class _Block(Generic[ThingT]):
    size: int
    live: int
    thing: ThingT


class Blocks(Generic[ThingT]):
    """The blocks that are there, by address. `size` counts the bytes of all of them, free ones included."""

    def __init__(self) -> None:
        self.size = 0
        self._next = 0
        self._starts: list[int] = []
        self._blocks: dict[int, _Block[ThingT]] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, size: int, thing: ThingT) -> int:
        """Where the new block begins."""
        if size < 1:
            raise ExtentError(f"a block of {size} bytes cannot be kept: it has no address of its own")
        start = self._next
        self._next += size
        self.size += size
        self._starts.append(start)
        self._blocks[start] = _Block(size, size, thing)
        return start

    def find(self, addresses: Iterable[int]) -> dict[int, ThingT]:
        """The blocks in which these addresses lie, by where they begin; an address in none is left out."""
        found: dict[int, ThingT] = {}
        for address in addresses:
            at = bisect_right(self._starts, address) - 1
            start = self._starts[at] if at >= 0 else 0
            block = self._blocks.get(start)
            if block is not None and address < start + block.size:
                found[start] = block.thing
        return found

    def free(self, offset: int, size: int) -> int:
        """These bytes, of as many blocks as they touch, are free for good; how many blocks went with their last ones.

        Bytes of blocks that are gone are passed over.
        """
        end = offset + size
        first, last = max(bisect_right(self._starts, offset) - 1, 0), bisect_right(self._starts, end - 1)
        kept = []
        for start in self._starts[first:last]:
            block = self._blocks[start]
            block.live -= max(min(end, start + block.size) - max(offset, start), 0)
            if block.live > 0:
                kept.append(start)
            else:
                del self._blocks[start]
                self.size -= block.size
        gone = last - first - len(kept)
        if gone:
            self._starts[first:last] = kept
        return gone
