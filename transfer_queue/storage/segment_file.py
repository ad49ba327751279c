"""The files that an arena's segments are: private, and with all their space reserved before anybody writes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from transfer_queue.errors import ControllerLostError
from transfer_queue.storage.extents import PAGE

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG}
_ZEROS = bytes(2**20)


def segment_files(folder: Path, owner: str) -> list[Path]:
    """Every segment file of that incarnation, attached or not: what is left of it when it is gone for good."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(rf"{re.escape(owner)}-\d+", path.name))


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A descriptor of a private new file, which goes again if anything fails."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise ControllerLostError(f"{path.parent} is gone: the run that kept it has ended") from error
    try:
        yield descriptor
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def reserve(descriptor: int, planned: int, needed: int) -> int:
    """Give the file `planned` bytes, or half of it and so on down to `needed`; how many it got, 0 if there is no room.

    What is reserved is there: a write to it through a mapping cannot fail.
    """
    size = planned
    while True:
        try:
            _allocate(descriptor, size)
            return size
        except OSError as error:
            if error.errno not in _FULL:
                raise
            os.ftruncate(descriptor, 0)
        if size == needed:
            return 0
        size = max(needed, size // 2 // PAGE * PAGE)


def _allocate(descriptor: int, size: int) -> None:
    """Reserve `size` bytes; where the system cannot (macOS), by writing them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    start = 0
    while start < size:
        start += os.pwrite(descriptor, _ZEROS[: size - start], start)
