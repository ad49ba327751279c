"""A run folder comes whole or not at all, and nothing lands elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from twinkle_operator.commands import archive as unpacking
from twinkle_operator.commands.archive import unpack
from twinkle_operator.errors import OperatorError


def archive(*members: tuple[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def special(kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, to
    return info


GOOD = (("run", special(tarfile.DIRTYPE)), ("run/metrics.jsonl", b"{}\n"), ("run/checkpoints/1/a", b"x" * 100_000))


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_whole(tmp_path: Path) -> None:
    found = unpack(io.BytesIO(archive(*GOOD)), "run", tmp_path / "runs")

    assert found == tmp_path / "runs" / "run"
    assert left(tmp_path) == {"runs/run/metrics.jsonl", "runs/run/checkpoints/1/a"}


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    unpack(io.BytesIO(archive(*GOOD)), "run", tmp_path)

    assert "run/old" not in left(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        ("run/../../escaped", b"x"),
        ("../escaped", b"x"),
        ("/tmp/escaped", b"x"),
        ("other/file", b"x"),
        ("runaway", b"x"),
        ("run/link", special(tarfile.SYMTYPE, "../../../etc/passwd")),
        ("run/link", special(tarfile.SYMTYPE, "/etc/passwd")),
        ("run/hard", special(tarfile.LNKTYPE, "../escaped")),
        ("run/up", special(tarfile.SYMTYPE, "checkpoints/../..")),
        ("run/device", special(tarfile.CHRTYPE)),
        ("run/pipe", special(tarfile.FIFOTYPE)),
    ],
)
def test_an_archive_that_reaches_outside_is_refused_and_leaves_nothing(
    tmp_path: Path, bad: tuple[str, bytes | tarfile.TarInfo]
) -> None:
    into = tmp_path / "deep" / "runs"
    with pytest.raises(OperatorError, match="refused"):
        unpack(io.BytesIO(archive(*GOOD, bad)), "run", into)

    assert left(tmp_path) == set()


def test_an_archive_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    with pytest.raises(OperatorError, match="did not come whole"):
        unpack(io.BytesIO(archive(*GOOD)[:50_000]), "run", tmp_path)

    assert left(tmp_path) == {"run/old"}


@pytest.mark.parametrize("body", [b"", b"tar: no such file" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(OperatorError):
        unpack(io.BytesIO(body), "run", tmp_path)

    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("bound", "value", "why"),
    [
        ("KEPT_FREE", 1 << 62, r"refused: it has \d+ bytes or more, of \d+ that are free in .*free some"),
        ("MOST_FILES", 2, "refused: it has more than 2 files"),
    ],
)
def test_what_the_disk_does_not_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, why: str
) -> None:
    monkeypatch.setattr(unpacking, bound, value)
    with pytest.raises(OperatorError, match=why):
        unpack(io.BytesIO(archive(*GOOD)), "run", tmp_path)

    assert list(tmp_path.iterdir()) == []


class Endless:
    """A header, then zeros for ever."""

    def __init__(self, header: bytes) -> None:
        self._header, self.bytes = header, 0

    def read(self, size: int = -1, /) -> bytes:
        piece, self._header = self._header[:size], self._header[size:]
        self.bytes += size
        assert self.bytes < 1 << 24, "all of it is read into memory"
        return piece or bytes(size)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME], ids=["x", "g", "L"])
def test_a_name_that_fills_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    record = special(kind)
    record.name, record.size = "run/a", 1 << 33
    with pytest.raises(OperatorError, match="a name or its attributes take 8589934592 bytes, more than 1048576"):
        unpack(Endless(record.tobuf(tarfile.GNU_FORMAT)), "run", tmp_path)


@pytest.mark.parametrize(
    "attributes",
    [{"path": "run/a\0b"}, {"mtime": "1e300"}, {"mtime": "nan"}, {"size": "-5"}, {"path": "run/" + "a" * 300}],
)
def test_attributes_that_nothing_has_are_no_traceback(tmp_path: Path, attributes: dict[str, str]) -> None:
    odd = special(tarfile.REGTYPE)
    odd.pax_headers = attributes
    with pytest.raises(OperatorError):
        unpack(io.BytesIO(archive(*GOOD, ("run/a", odd))), "run", tmp_path)

    assert left(tmp_path) == set()


def test_a_link_to_what_did_not_come_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"did not come whole: .*run/nothing"):
        unpack(io.BytesIO(archive(*GOOD, ("run/hard", special(tarfile.LNKTYPE, "run/nothing")))), "run", tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OperatorError, match=r"runs cannot be written: File exists"):
        unpack(io.BytesIO(archive(*GOOD)), "run", tmp_path / "runs")


def test_what_was_there_comes_back_when_ctrl_c_falls_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == tmp_path / "run" and path.name == "run":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(io.BytesIO(archive(*GOOD)), "run", tmp_path)

    assert left(tmp_path) == {"run/old"}


def test_links_inside_the_folder_are_kept(tmp_path: Path) -> None:
    unpack(io.BytesIO(archive(*GOOD, ("run/latest", special(tarfile.SYMTYPE, "checkpoints/1")))), "run", tmp_path)

    assert (tmp_path / "run" / "latest" / "a").is_file()
