"""What the bytes of a journal mean. Pure: bytes in, values out.

    segment    header | record | record | …        appended to, then sealed
    record     length u32 | checksum u32 | payload
    snapshot   header | payload                    stands for every segment up to its number

The checksum of a record is the CRC-32 of its length and payload, begun from the checksum before it (the first one from
that of the header): a record is valid only behind exactly the records that it was written behind. The header of a
segment says where and with which checksum the segment before it ended, that of a snapshot the same of the last segment
it stands for: so a tail that never reached the disk is noticed even where it ends between two records.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from transfer_queue.errors import JournalError

Frame = bytes | bytearray | memoryview

VERSION = 1
SEGMENT = b"TQ-segm\n"
SNAPSHOT = b"TQ-snap\n"
LARGEST = 1 << 30
"""Bytes of the largest record."""

_HEADER = struct.Struct("<8sIQ32sQIQI")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size
PREFIX = struct.Struct("<II")
LENGTH = struct.Struct("<I")


class Mark(NamedTuple):
    """The end of a record or of a header: its offset in the file and the checksum there."""

    offset: int
    chain: int


START = Mark(0, 0)
"""What the first segment of all follows."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of a file; their layout is the same in every format version, so that each knows the others.

    `mark` is the end of the segment before (in a segment) or of the last one it stands for (in a snapshot); `size` and
    `checksum` are those of a snapshot's payload.
    """

    kind: bytes
    number: int
    identity: bytes
    mark: Mark
    size: int = 0
    checksum: int = 0
    version: int = VERSION

    def encode(self) -> bytes:
        fields = _HEADER.pack(self.kind, self.version, self.number, self.identity, *self.mark, self.size, self.checksum)
        return fields + _CHECKSUM.pack(crc32(fields))

    def end(self) -> Mark:
        """Where the first record begins."""
        return Mark(HEADER_BYTES, crc32(self.encode()[: _HEADER.size]))


def parse(data: bytes, kind: bytes, number: int) -> Header | None:
    """The header at the start of `data`; None if it is damaged or belongs to a file of another kind or number."""
    if len(data) < HEADER_BYTES or _CHECKSUM.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        return None
    found, version, its_number, identity, offset, chain, size, checksum = _HEADER.unpack_from(data)
    if (found, its_number) != (kind, number):
        return None
    return Header(kind, number, identity, Mark(offset, chain), size, checksum, version)


def digest(identity: bytes) -> bytes:
    """What a header keeps of the caller's identity."""
    return hashlib.sha256(identity).digest()


def refuse_foreign(header: Header, identity: bytes | None, path: Path) -> None:
    """`JournalError` if a whole header is of another format version or, where a digest is given, another identity."""
    if header.version != VERSION:
        raise JournalError(
            f"{path} is a journal of format {header.version} and this program reads format {VERSION}: "
            "go on with the program that wrote it, or name another folder"
        )
    if identity is not None and header.identity != identity:
        raise JournalError(
            f"{path} belongs to another queue (identity {header.identity.hex()[:12]}…, wanted {identity.hex()[:12]}…): "
            "name another folder, or start with the settings it was written with"
        )
