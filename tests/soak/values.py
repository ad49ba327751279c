"""Values that say themselves whether they are whole: their first bytes are a key, and all others follow from it."""

from __future__ import annotations

import random
from zlib import crc32

KEY = 8


def make(key: int, size: int) -> bytes:
    """`size` bytes (at least 8) that only this key gives."""
    head = key.to_bytes(KEY, "little")
    return head + random.Random(key).randbytes(size - KEY)


def key_of(value: bytes) -> int:
    """The key; ValueError if a single byte is not as it was made."""
    key = int.from_bytes(value[:KEY], "little")
    if len(value) < KEY or make(key, len(value)) != value:
        raise ValueError(f"{len(value)} bytes that begin with {value[:16].hex()} are not as they were made")
    return key


def checksum(value: bytes) -> int:
    return crc32(value)
