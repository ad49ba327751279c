"""Choices that are a function of their key and of nothing else: no generator, no state, the same on every platform."""

import hashlib


def keyed_number(*key: int | str) -> int:
    """A number of 128 bits, evenly spread, that belongs to `key`."""
    text = "\0".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def keyed_order(count: int, *key: int | str) -> list[int]:
    """The numbers 0 .. count - 1 in the shuffled order that belongs to `key`."""
    return sorted(range(count), key=lambda index: keyed_number(*key, index))
