"""A tar stream made into a folder: whole or not at all, and never a byte outside of it."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import IO, Protocol, cast

from twinkle_operator.errors import OperatorError

CHUNK = 1 << 16


class Stream(Protocol):
    """Bytes that come one after another."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


def unpack(stream: Stream, name: str, into: Path) -> Path:
    """Make the folder `name` of the archive into `into`/`name`, in place of what is there; its path.

    Everything in the archive has to lie below `name`: absolute paths, `..`, links that lead outside, devices and other
    names are refused. What is there already stays until the archive has come whole.

    Raises:
        OperatorError: the archive is refused, broken, or holds nothing; or the stream says so at its end.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=into) as place:
        try:
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
                for member in archive:
                    _check(member, name)
                    archive.extract(member, place, filter="data")
            while stream.read(CHUNK):
                pass  # behind the archive comes only how its writer ended
        except tarfile.FilterError as error:
            raise OperatorError(f"the archive of {name} is refused: {error}") from error
        except (tarfile.TarError, EOFError) as error:
            raise OperatorError(f"the archive of {name} did not come whole: {error}") from error
        found, target = Path(place) / name, into / name
        if not found.is_dir():
            raise OperatorError(f"the archive holds no folder {name}")
        if target.exists():
            target.rename(Path(place) / "replaced")  # and goes with that folder
        found.rename(target)
    return target


def _check(member: tarfile.TarInfo, name: str) -> None:
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts or parts[:1] != (name,):
        raise OperatorError(f"the archive is refused: {member.name!r} does not lie below {name}")
