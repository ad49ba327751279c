"""What was appended since the last commit, framed and checksummed, small records in one piece and big ones uncopied."""

from __future__ import annotations

from zlib import crc32

from transfer_queue.errors import JournalError
from transfer_queue.journal.format import LARGEST, LENGTH, Frame, Mark

COPIED = 1 << 15
"""Parts below this size are copied into one buffer: that is cheaper than an entry of `writev` each."""


class Burst:
    """Records on their way into the file. A part of 32 KiB or more must not change until it is written."""

    def __init__(self, mark: Mark) -> None:
        self.restart(mark)

    def restart(self, mark: Mark) -> None:
        """Forget what was appended; the next record follows `mark`."""
        self.offset, self.chain = mark
        self._frames: list[Frame] = []
        self._small = bytearray()

    @property
    def mark(self) -> Mark:
        """Where the file ends once the burst is written."""
        return Mark(self.offset, self.chain)

    def add(self, parts: tuple[Frame, ...]) -> None:
        """Append the record that these parts make up."""
        length = 0
        for part in parts:
            length += len(part) if type(part) is bytes else memoryview(part).nbytes
        if length > LARGEST:
            raise JournalError(f"a record of {length:,} bytes is larger than {LARGEST:,}: split it")
        prefix = LENGTH.pack(length)
        chain = crc32(prefix, self.chain)
        for part in parts:
            chain = crc32(part, chain)
        self._small += prefix
        self._small += LENGTH.pack(chain)
        for part in parts:
            if type(part) is bytes and len(part) < COPIED:
                self._small += part
            else:
                self._add_view(memoryview(part))
        self.chain = chain
        self.offset += 8 + length

    def _add_view(self, part: memoryview) -> None:
        if part.nbytes < COPIED:
            self._small += part  # of any shape: what counts is its bytes
            return
        self._frames += [self._small, part.cast("B")]
        self._small = bytearray()

    def frames(self) -> list[Frame]:
        """Everything in order; empty if nothing was appended."""
        return [frame for frame in (*self._frames, self._small) if len(frame)]
