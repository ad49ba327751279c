"""Snapshots whose payload is every record so far, and folds that do not do what they should."""

import os
import struct
import time
from collections.abc import Iterable, Iterator

LENGTH = struct.Struct("<I")


def keep_all(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterator[bytes | memoryview]:
    """The records of the snapshot and those behind it, each with its length."""
    if snapshot is not None:
        yield snapshot
    for record in records:
        yield LENGTH.pack(len(record)) + record


def kept(snapshot: memoryview | None) -> list[bytes]:
    """What `keep_all` put into a snapshot."""
    found, at = [], 0
    while snapshot is not None and at < len(snapshot):
        (length,) = LENGTH.unpack_from(snapshot, at)
        found.append(bytes(snapshot[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def keep_all_slowly(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterator[bytes | memoryview]:
    for chunk in keep_all(snapshot, records):
        time.sleep(0.001)
        yield chunk


def keep_one(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterable[bytes]:
    """Leaves records unread, which would lose them."""
    return [next(records)]


def raise_an_error(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterable[bytes]:
    raise KeyError("no such partition")


def leave(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterable[bytes]:
    os._exit(7)


def talk(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterator[bytes | memoryview]:
    print("a fold may print, and look at its surroundings:", os.nice(0), os.environ["OMP_NUM_THREADS"])
    yield f"{os.nice(0)} {os.environ['OMP_NUM_THREADS']}".encode()
    for _ in records:
        pass
