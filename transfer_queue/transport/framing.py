"""Messages on a byte stream: a head that says how many parts follow and how large they are, then the parts.

    "TQ" | version (1 byte) | number of parts (1 byte) | size of each part (8 bytes, little endian) | parts

The first part is the message's header. Memory for what is announced is taken only as its bytes arrive.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from transfer_queue.errors import ProtocolError

Frame = bytes | bytearray | memoryview

MAGIC = b"TQ"
VERSION = 1
MOST_PARTS = 255
LONGEST_HEADER = 16 << 20
LONGEST_MESSAGE = 2 << 30
"""Bytes of all parts of a message, unless a server or a client is told otherwise."""

START = len(MAGIC) + 2
"""Bytes before the sizes."""
JOINED = 16 << 10
"""A message of up to this size leaves as one buffer: copying it costs less than a second buffer does."""
DIRECT = 64 << 10
"""A part that lacks so much is received in place; the bytes of smaller ones come many at a time and are copied once."""
IN_KERNEL = 1 << 20
"""Bytes that a unix socket takes before its peer has read any, as far as the system allows."""
GRAIN = 1 << 20
"""Memory that a part may have before any of its bytes have arrived."""
CREDIT = 8
"""Bytes that it may have on top for each one that has: what is only announced costs next to nothing, and a large part
moves but a few times while it grows."""

_PLAIN = MAGIC + bytes([VERSION])
_HEADS = [struct.Struct(f"<{START}s{count}Q") for count in range(MOST_PARTS + 1)]


def framed(parts: Sequence[Frame], longest: int = LONGEST_MESSAGE) -> list[Frame]:
    """The message as buffers to be sent one after the other; `ProtocolError` if it is larger than one may be."""
    sizes = check(parts, longest)
    head = _HEADS[len(sizes)].pack(_PLAIN + bytes((len(sizes),)), *sizes)
    if sum(sizes) <= JOINED:
        return [b"".join((head, *parts))]
    return [head, *(part for part, size in zip(parts, sizes, strict=True) if size)]


def check(parts: Sequence[Frame], longest: int = LONGEST_MESSAGE) -> list[int]:
    """The sizes of the parts; `ProtocolError` if they are more than may go into one message."""
    sizes = [len(part) if type(part) is bytes else memoryview(part).nbytes for part in parts]
    if not 0 < len(sizes) <= MOST_PARTS or sizes[0] > LONGEST_HEADER or sum(sizes) > longest:
        raise ProtocolError(_too_large(sizes, longest))
    return sizes


class Decoder:
    """Turns what arrives into messages, in whatever pieces it comes.

    Where `room` gives memory, the next bytes are to be received into it and counted with `filled`; where it gives
    None, they are handed to `feed`. After either, `take` gives the messages that are complete, one by one, then None.
    A `ProtocolError` is final.
    """

    __slots__ = ("_at", "_buffer", "_data", "_filled", "_longest", "_parts", "_sizes")

    def __init__(self, longest: int = LONGEST_MESSAGE) -> None:
        self._longest = longest
        self._data = b""  # what came and was not looked at yet, from _at on
        self._at = 0
        self._sizes: Sequence[int] | None = None  # of the message that has begun and is not complete
        self._parts: list[Frame] = []
        self._buffer: bytearray | None = None  # of its next part, as far as it has memory
        self._filled = 0

    def feed(self, data: bytes) -> None:
        """Bytes that arrived."""
        self._data = data if self._at == len(self._data) else self._data[self._at :] + data
        self._at = 0

    def room(self) -> memoryview | None:
        """Memory for the next bytes of a large part. Release it before anything else is called."""
        buffer = self._buffer
        if buffer is None or self._sizes is None or self._sizes[len(self._parts)] - self._filled < DIRECT:
            return None
        if self._filled == len(buffer):
            buffer = self._grow(buffer, self._sizes[len(self._parts)], self._filled)
        return memoryview(buffer)[self._filled :]

    def filled(self, count: int) -> None:
        """So many bytes were received into `room`."""
        self._filled += count
        self._finish_part()

    def take(self) -> list[Frame] | None:
        """The next complete message, or None until more has arrived."""
        if self._sizes is not None:
            return self._carry_on()
        data, at = self._data, self._at
        left = len(data) - at
        if left < START:
            if not left:
                self._data, self._at = b"", 0  # an idle connection keeps nothing
            elif not _PLAIN.startswith(data[at : at + 3]):
                raise ProtocolError(_foreign(data[at : at + START]))
            return None
        if not data.startswith(_PLAIN, at):
            raise ProtocolError(_foreign(data[at : at + START]))
        head = _HEADS[data[at + 3]]
        if left < head.size:
            return None
        _, *sizes = head.unpack_from(data, at)
        if not sizes or sizes[0] > LONGEST_HEADER or (total := sum(sizes)) > self._longest:
            raise ProtocolError(_too_large(sizes, self._longest))
        start = self._at = at + head.size
        if len(data) - start < total:
            self._sizes = sizes
            return self._carry_on()
        parts: list[Frame] = []
        for size in sizes:
            parts.append(data[start : start + size])
            start += size
        self._at = start
        return parts

    def _carry_on(self) -> list[Frame] | None:
        """Go on with a message whose parts come in pieces."""
        sizes, parts = self._sizes, self._parts
        assert sizes is not None
        while len(parts) < len(sizes):
            size = sizes[len(parts)]
            if self._buffer is None:
                there = len(self._data) - self._at
                self._buffer, self._filled = bytearray(min(size, GRAIN + CREDIT * there)), 0
            piece = self._data[self._at : self._at + size - self._filled]
            self._place(piece, size)
            if self._buffer is not None:
                return None
        self._sizes, self._parts = None, []
        return parts

    def _place(self, piece: bytes, size: int) -> None:
        assert self._buffer is not None
        if len(self._buffer) < self._filled + len(piece):
            self._grow(self._buffer, size, self._filled + len(piece))
        self._buffer[self._filled : self._filled + len(piece)] = piece
        self._at += len(piece)
        self._filled += len(piece)
        self._finish_part()

    def _finish_part(self) -> None:
        assert self._sizes is not None
        assert self._buffer is not None
        size = self._sizes[len(self._parts)]
        if self._filled == size:
            self._parts.append(bytes(self._buffer) if size < DIRECT else self._buffer)
            self._buffer = None

    def _grow(self, buffer: bytearray, size: int, arrived: int) -> bytearray:
        larger = bytearray(min(size, GRAIN + CREDIT * arrived))
        larger[: self._filled] = memoryview(buffer)[: self._filled]
        self._buffer = larger
        return larger


def _foreign(start: bytes) -> str:
    if start.startswith(MAGIC) and len(start) > len(MAGIC):
        return f"a message of version {start[len(MAGIC)]}; this side speaks version {VERSION}: use one release for all"
    return f"bytes that begin with {start!r} are no message of a transfer queue"


def _too_large(sizes: Sequence[int], longest: int) -> str:
    if not sizes:
        return "a message without parts"
    if len(sizes) > MOST_PARTS:
        return f"a message of {len(sizes)} parts; at most {MOST_PARTS} go into one: send fewer fields at a time"
    if sizes[0] > LONGEST_HEADER:
        return f"a message whose header has {sizes[0]} bytes; at most {LONGEST_HEADER} are allowed: ask for fewer rows"
    return (
        f"a message of {sum(sizes)} bytes; at most {longest} are allowed in one: send or ask for fewer rows at a time"
    )
