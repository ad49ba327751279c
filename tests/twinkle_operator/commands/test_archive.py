"""A run folder comes whole or not at all, and nothing lands elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

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


def test_links_inside_the_folder_are_kept(tmp_path: Path) -> None:
    unpack(io.BytesIO(archive(*GOOD, ("run/latest", special(tarfile.SYMTYPE, "checkpoints/1")))), "run", tmp_path)

    assert (tmp_path / "run" / "latest" / "a").is_file()
