"""A controller's side of arenas as small as it can be, and a file system so small that it fills up."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transfer_queue.storage.arena import Arena


class Segments:
    """Numbers segments and remembers where they lie."""

    def __init__(self) -> None:
        self.paths: dict[int, str] = {}
        self.sizes: dict[int, int] = {}
        self.detached: list[int] = []

    def attach(self, path: str, size: int) -> int:
        segment = len(self.sizes)
        self.paths[segment], self.sizes[segment] = path, size
        return segment

    def detach(self, segment: int) -> None:
        del self.paths[segment]
        self.detached.append(segment)


@pytest.fixture
def segments() -> Segments:
    return Segments()


@pytest.fixture
def arena(tmp_path: Path, segments: Segments) -> Iterator[Arena]:
    """An arena with segments of 1 MiB and more."""
    arena = Arena(tmp_path, "me", segments.attach, segments.detach)
    yield arena
    arena.close()


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer_queue.storage.arena.SMALLEST_SEGMENT", 2**20)
    monkeypatch.setattr("transfer_queue.storage.arena.LARGEST_SEGMENT", 4 * 2**20)


@pytest.fixture
def tiny_memory(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many MiB, or skips the test where that is not allowed."""
    mounted: list[Path] = []

    def mount(mebibytes: int) -> Path:
        folder = tmp_path / f"memory{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
        try:
            made = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            made = False
        if not made:
            pytest.skip("a tmpfs cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
