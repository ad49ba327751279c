"""Snapshots: one file that stands for every segment up to its number, visible only when it is whole."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import replace
from zlib import crc32

from transfer_queue.errors import JournalError
from transfer_queue.journal.folder import TEMPORARY, Folder
from transfer_queue.journal.format import HEADER_BYTES, SNAPSHOT, Frame, Header, Mark, parse, refuse_foreign

CHUNK = 1 << 20


def write(folder: Folder, number: int, identity: bytes, mark: Mark, chunks: Iterable[Frame]) -> int:
    """Write a snapshot, read it back, and show it by one rename; the bytes of its payload.

    Until it returns, nothing of the journal has changed; `identity` is a digest, `mark` the end of segment `number`.
    """
    path = folder.snapshot(number)
    temporary = path.with_name(path.name + TEMPORARY)
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    file = folder.create(temporary)
    try:
        header = _fill(file, Header(SNAPSHOT, number, identity, mark), chunks)
        os.fsync(file)
        if hasattr(os, "posix_fadvise"):  # so that it is read back from the disk rather than from memory
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        if _checked(file, number) != header:
            raise JournalError(f"{temporary} does not read back as it was written: look at the disk")
    except BaseException:
        temporary.unlink()
        raise
    finally:
        os.close(file)
    os.rename(temporary, path)
    folder.sync()
    return header.size


def newest(folder: Folder, upto: int, identity: bytes | None) -> tuple[Header | None, list[int]]:
    """The newest snapshot up to that number whose every byte is as it was written, and the damaged ones above it."""
    damaged: list[int] = []
    for number in reversed([number for number in folder.snapshots() if number <= upto]):
        if (header := check(folder, number, identity)) is not None:
            return header, damaged
        damaged.append(number)
    return None, damaged


def check(folder: Folder, number: int, identity: bytes | None) -> Header | None:
    """The header of a snapshot that was read to its end and is whole; None if it is damaged or cannot be read."""
    path = folder.snapshot(number)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = parse(os.pread(file, HEADER_BYTES, 0), SNAPSHOT, number)
        if head is not None:
            refuse_foreign(head, identity, path)
        return _checked(file, number)
    except OSError:
        return None
    finally:
        os.close(file)


def view(folder: Folder, header: Header) -> memoryview:
    """The payload, mapped: it costs no memory until it is read, and stays valid when the file is removed."""
    with open(folder.snapshot(header.number), "rb") as file:
        mapped = mmap.mmap(file.fileno(), HEADER_BYTES + header.size, access=mmap.ACCESS_READ)
    return memoryview(mapped)[HEADER_BYTES:]


def _fill(file: int, header: Header, chunks: Iterable[Frame]) -> Header:
    with open(file, "wb", buffering=CHUNK, closefd=False) as out:
        out.write(bytes(HEADER_BYTES))
        size, checksum = 0, 0
        for chunk in chunks:
            size += memoryview(chunk).nbytes
            checksum = crc32(chunk, checksum)
            out.write(chunk)
    whole = replace(header, size=size, checksum=checksum)
    os.pwrite(file, whole.encode(), 0)
    return whole


def _checked(file: int, number: int) -> Header | None:
    header = parse(os.pread(file, HEADER_BYTES, 0), SNAPSHOT, number)
    if header is None or os.fstat(file).st_size != HEADER_BYTES + header.size:
        return None
    at, checksum = HEADER_BYTES, 0
    while chunk := os.pread(file, CHUNK, at):
        checksum = crc32(chunk, checksum)
        at += len(chunk)
    return header if (at, checksum) == (HEADER_BYTES + header.size, header.checksum) else None
