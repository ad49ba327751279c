"""Bytes of one file from a hub onto the disk: goes on where it was cut, tries again, and checks the hash."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import requests

from twinkle.errors import DownloadError
from twinkle.hub.address import Address
from twinkle.hub.modelscope_api import RemoteFile, Unreachable

BLOCK = 1 << 20
ARRIVING = 1 << 16
ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
Open = Callable[[int], requests.Response]


def transfer(open_at: Open, partial: Path, file: RemoteFile, address: Address) -> None:
    """Fill ``partial`` with the file; what it holds already is kept, and only the rest is asked for.

    Raises DownloadError after 5 attempts in a row that brought no byte, and when the hash is wrong twice.
    """
    for last in (False, True):
        _fill(open_at, partial, file, address)
        digest = sha256_of(partial) if file.sha256 else ""
        if digest == file.sha256:
            return
        partial.unlink()
        if last:
            raise DownloadError(
                f"model {str(address)!r}: {file.path} arrived broken twice (its hash is {digest[:12]}…, not "
                f"{file.sha256[:12]}…) and was removed; try again, and look at MODELSCOPE_DOMAIN if it stays so"
            )


def sha256_of(file: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fill(open_at: Open, partial: Path, file: RemoteFile, address: Address) -> None:
    partial.touch()
    failures = 0
    while (start := partial.stat().st_size) != file.size:
        if start > file.size:
            partial.write_bytes(b"")
            start = 0
        cause = _attempt(open_at, partial, start)
        failures = 0 if start < partial.stat().st_size <= file.size else failures + 1
        if failures == ATTEMPTS:
            raise DownloadError(
                f"model {str(address)!r}: {file.path} stays at {partial.stat().st_size} of {file.size} bytes after "
                f"{ATTEMPTS} attempts ({cause}); what has come is kept, try again later"
            ) from cause
        if failures:
            time.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures))


def _attempt(open_at: Open, partial: Path, start: int) -> Exception:
    """Append what one answer brings, and say why it may be short."""
    try:
        _append(open_at, partial, start)
    except (requests.RequestException, Unreachable) as error:
        return error
    return ConnectionError("the answer ends where it should not")


def _append(open_at: Open, partial: Path, start: int) -> None:
    """Everything that one answer brings; a server that ignores the range begins the file anew."""
    with open_at(start) as answer:
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if answer.status_code in (206, 416) and not resumed:
            partial.write_bytes(b"")
            return
        with partial.open("ab" if resumed else "wb") as opened:
            for block in answer.iter_content(ARRIVING):
                opened.write(block)
                opened.flush()
