"""Reading segments: record by record in bounded memory, and never past what is proven whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from zlib import crc32

from transfer_queue.errors import JournalError
from transfer_queue.journal.folder import Folder
from transfer_queue.journal.format import (
    HEADER_BYTES,
    LARGEST,
    LENGTH,
    PREFIX,
    SEGMENT,
    START,
    Header,
    Mark,
    parse,
    refuse_foreign,
)

CHUNK = 1 << 20


class SegmentReader:
    """The records of one segment.

    `header` is None if it is damaged. After `records` ended, `mark` is the end of the last whole record, and `fault`
    says why it ended there: "" at the end, "torn" where the file ends inside a record or in zeros, else "damaged".
    """

    def __init__(self, path: Path, number: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.size = os.fstat(self._file.fileno()).st_size
        self.header = parse(self._file.read(HEADER_BYTES), SEGMENT, number)
        self.mark = self.header.end() if self.header else START
        self.count = 0
        self.fault = "" if self.header else "torn" if self.size < HEADER_BYTES else "damaged"

    def records(self, stop: int | None = None) -> Iterator[bytes]:
        """Whole records up to the offset `stop`, or to the end of the file."""
        if self.header is None:
            return
        size = self.size if stop is None else min(self.size, stop)
        offset, chain = self.mark
        while data := self._chunk(offset, size):
            at, count = 0, 0
            while at + 8 <= len(data):
                length, checksum = PREFIX.unpack_from(data, at)
                behind = at + 8 + length
                if behind > len(data):
                    break
                payload = data[at + 8 : behind]
                found = crc32(payload, crc32(data[at : at + 4], chain))
                if found != checksum:
                    self._ended(offset + at, chain, count, self._zeros_from(offset + at))
                    return
                chain, at, count = found, behind, count + 1
                yield payload
            offset += at
            self._ended(offset, chain, count, "" if count else "torn")
            if not count:
                return  # the file became shorter under our eyes

    def _ended(self, offset: int, chain: int, count: int, fault: str) -> None:
        self.mark, self.fault = Mark(offset, chain), fault
        self.count += count

    def _chunk(self, offset: int, size: int) -> bytes:
        """The bytes from there on, at least one record; none at the end, or where the record there cannot be whole."""
        left = size - offset
        if left < 8:
            self.fault = "torn" if left else ""
            return b""
        file = self._file.fileno()
        (length,) = LENGTH.unpack(os.pread(file, 4, offset))
        if length > LARGEST or 8 + length > left:
            self.fault = "torn" if length <= LARGEST else "damaged"
            return b""
        return os.pread(file, min(left, max(CHUNK, 8 + length)), offset)

    def _zeros_from(self, offset: int) -> str:
        """A file system that lost power may leave zeros where the last writes should be: that is a torn tail too."""
        self._file.seek(offset)
        while chunk := self._file.read(CHUNK):
            if chunk.count(0) != len(chunk):
                return "damaged"
        return "torn"

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def segment_header(folder: Folder, number: int, identity: bytes | None) -> Header | None:
    """The header of a segment; None if it is damaged, `JournalError` if the file is not there or belongs to another."""
    path = folder.segment(number)
    try:
        with SegmentReader(path, number) as reader:
            header = reader.header
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    if header is not None:
        refuse_foreign(header, identity, path)
    return header


def replay(folder: Folder, identity: bytes | None, begin: Mark, numbers: range, end: Mark) -> Iterator[bytes]:
    """Every record of these segments, from the one that follows `begin` to `end`; a damaged one is a `JournalError`."""
    mark = begin
    for number in numbers:
        path = folder.segment(number)
        try:
            with SegmentReader(path, number) as reader:
                if reader.header is None or reader.header.mark != mark:
                    raise JournalError(f"{path} is damaged or does not follow the segment before it")
                refuse_foreign(reader.header, identity, path)
                mark = end if number == numbers[-1] else _end_of(folder, number, identity)
                yield from reader.records(mark.offset)
                if reader.mark != mark:
                    raise JournalError(f"{path} is damaged at offset {reader.mark.offset}, of {mark.offset} bytes")
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error.strerror}") from error


def _end_of(folder: Folder, number: int, identity: bytes | None) -> Mark:
    following = segment_header(folder, number + 1, identity)
    if following is None:
        raise JournalError(f"{folder.segment(number + 1)} has a damaged header")
    return following.mark
