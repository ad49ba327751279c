"""A tar stream made into a folder: whole or not at all, never a byte outside of it, and no more than the disk holds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self, cast

from twinkle_operator.errors import OperatorError

if TYPE_CHECKING or sys.version_info >= (3, 12):
    import tarfile
else:  # Debian 12 has 3.11.2, whose own knows no filter
    from backports import tarfile

CHUNK = 1 << 16
KEPT_FREE = 1 << 30
"""Bytes of the disk that no archive takes."""
LEAST = 4096
"""Bytes that the smallest file takes."""
MOST_FILES = 1_000_000
MOST_RECORD = 1 << 20
"""Bytes of a long name or of attributes: tarfile reads such a record into memory."""
RECORDS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
           tarfile.GNUTYPE_LONGLINK)  # fmt: skip
BROKEN = (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError, RecursionError)
"""What tarfile raises for an archive that somebody made or cut."""


class Stream(Protocol):
    """Bytes that come one after another."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


def unpack(stream: Stream, name: str, into: Path) -> Path:
    """Make the folder `name` of the archive into `into`/`name`, in place of what is there; its path.

    Everything in the archive has to lie below `name`: absolute paths, `..`, also in a link, devices and other names are
    refused, and what leaves less than `KEPT_FREE` bytes of the disk. What is there already stays until the archive has
    come whole.

    Raises:
        OperatorError: the archive is refused, broken, or holds nothing; the folder cannot be written; or the stream
            says so at its end.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=into) as place:
            found, target = Path(place) / name, into / name
            _extract(stream, name, Path(place))
            if not found.is_dir():
                raise OperatorError(f"the archive holds no folder {name}")
            _replace(found, target, Path(place) / "replaced")
    except tarfile.FilterError as error:
        raise OperatorError(f"the archive of {name} is refused: {error}") from error
    except BROKEN as error:
        raise OperatorError(f"the archive of {name} did not come whole: {error}") from error
    except OSError as error:
        raise OperatorError(f"{into} cannot be written: {error.strerror or error}") from error
    return target


def _extract(stream: Stream, name: str, place: Path) -> None:
    free = shutil.disk_usage(place).free
    room, size = free - KEPT_FREE, 0
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=_Member) as archive:
        for count, member in enumerate(archive, 1):
            _check(member, name)
            size += max(member.size, LEAST)
            if size > room:
                raise OperatorError(
                    f"the archive of {name} is refused: it has {size} bytes or more, of {free} that are free in "
                    f"{place.parent} and {KEPT_FREE} that stay so; free some or choose another disk"
                )
            if count > MOST_FILES:
                raise OperatorError(f"the archive of {name} is refused: it has more than {MOST_FILES} files")
            archive.extract(member, place, filter="data")
    while stream.read(CHUNK):
        pass  # behind the archive comes only how its writer ended


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As its base; HeaderError for a record that is too long."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in RECORDS and found.size > MOST_RECORD:
            raise tarfile.HeaderError(f"a name or its attributes take {found.size} bytes, more than {MOST_RECORD}")
        return found


def _check(member: tarfile.TarInfo, name: str) -> None:
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts or parts[:1] != (name,):
        raise OperatorError(f"the archive is refused: {member.name!r} does not lie below {name}")
    if (member.issym() or member.islnk()) and ".." in Path(member.linkname).parts:
        raise OperatorError(f"the archive is refused: the link {member.name!r} leads to {member.linkname!r}")


def _replace(found: Path, target: Path, aside: Path) -> None:
    """What was there goes with the folder of `aside`, or comes back where something, Ctrl-C too, ends this between."""
    try:
        if os.path.lexists(target):
            target.rename(aside)
        found.rename(target)
    finally:
        if os.path.lexists(aside) and not os.path.lexists(target):
            aside.rename(target)
