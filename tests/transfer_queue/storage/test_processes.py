"""Arenas between real processes: exchange, forks, and deaths at any point."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.transfer_queue.storage.conftest import Segments
from transfer_queue.errors import ConfigurationError
from transfer_queue.storage.arena import Arena
from transfer_queue.storage.reader import Reader
from transfer_queue.storage.run_folder import RunFolder, sweep

WRITER = """
import json, sys
from pathlib import Path
import numpy as np
from transfer_queue.storage.arena import Arena
paths = []
attach = lambda path, size: paths.append(path) or len(paths) - 1
arena = Arena(Path(sys.argv[1]), "writer", attach, lambda segment: None)
for line in sys.stdin:
    size, value = json.loads(line)
    (extent,) = arena.write([np.full(size, value, np.uint8)])
    print(json.dumps([extent, paths[extent.segment]]), flush=True)
"""
ENDLESS = """
import sys
from pathlib import Path
import numpy as np
from transfer_queue.storage.arena import Arena
from transfer_queue.storage.run_folder import RunFolder
folder = RunFolder.make(Path(sys.argv[1]))
made = []
arena = Arena(folder.path, "writer", lambda path, size: made.append(path) or len(made) - 1, lambda segment: None)
values = np.ones(32 * 2**20, np.uint8)
print(folder.path, flush=True)
while True:
    arena.recycle(arena.write([values]))
"""
READS = """
import sys
from transfer_queue.storage.reader import Reader
from transfer_queue.storage.run_folder import RunFolder
reader = Reader(lambda segment: sys.argv[1])
view = reader.view(0, 0, 1000)
print(int(view.sum()), flush=True)
while True:
    reader.gather([[0, 0, 1000]])
"""
FILLS = """
import sys
from pathlib import Path
import numpy as np
from transfer_queue.errors import StorageFullError
from transfer_queue.storage.arena import Arena
sizes = []
attach = lambda path, size: sizes.append(size) or len(sizes) - 1
arena = Arena(Path(sys.argv[1]), "writer", attach, lambda segment: None)
written = 0
try:
    while True:
        arena.write([np.ones(200_000, np.uint8)])
        written += 1
except StorageFullError:
    print(written, sum(sizes))
"""


@contextmanager
def python(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of that program, killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_exchange_values_and_what_was_written_outlives_its_writer(tmp_path: Path) -> None:
    paths: dict[int, str] = {}
    extents = {}
    reader = Reader(paths.__getitem__)
    with python(WRITER, tmp_path) as writer:
        assert writer.stdin is not None
        for value, size in enumerate([1000, 70_000, 3 * 2**20, 5]):
            writer.stdin.write(json.dumps([size, value]) + "\n")
            writer.stdin.flush()
            extents[value], path = json.loads(said(writer))
            paths[extents[value][0]] = path
            assert (reader.view(*extents[value]) == value).all()
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(10) == -signal.SIGKILL

    gathered = Reader(paths.__getitem__).gather(np.array([extents[3], extents[1], extents[0], extents[2]]))
    assert gathered.nbytes == sum(size for _, _, size in extents.values())
    counts = np.bincount(gathered, minlength=4)
    assert counts.tolist() == [1000, 70_000, 3 * 2**20, 5]


def test_a_writer_killed_while_it_writes_leaves_nothing_after_the_sweep(tmp_path: Path) -> None:
    for _ in range(3):
        with python(ENDLESS, tmp_path) as writer:
            folder = Path(said(writer))
            assert sweep(tmp_path) == []
            assert folder.exists()
            writer.send_signal(signal.SIGKILL)
            assert writer.wait(10) == -signal.SIGKILL
        assert sweep(tmp_path) == [folder]
        assert list(tmp_path.iterdir()) == []


def test_a_reader_killed_while_it_reads_leaves_nothing(tmp_path: Path, segments: Segments) -> None:
    folder = RunFolder.make(tmp_path)
    arena = Arena(folder.path, "me", segments.attach, segments.detach)
    arena.write([np.full(1000, 3, np.uint8)])
    before = sorted(folder.path.iterdir())
    with python(READS, segments.paths[0]) as reader:
        assert said(reader) == "3000"
        reader.send_signal(signal.SIGKILL)
        assert reader.wait(10) == -signal.SIGKILL
    assert sorted(folder.path.iterdir()) == before
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_fills_up_raises_and_never_signals(tiny_memory: Callable[[int], Path]) -> None:
    with python(FILLS, tiny_memory(4)) as writer:
        out, _ = writer.communicate(timeout=60)
    written, reserved = map(int, out.split())
    assert writer.returncode == 0
    assert 18 <= written <= 20
    assert reserved <= 4 * 2**20


def test_a_forked_child_cannot_write_where_its_parent_does(tmp_path: Path, segments: Segments) -> None:
    arena = Arena(tmp_path, "me", segments.attach, segments.detach)
    (extent,) = arena.write([b"parent's"])
    child = os.fork()
    if child == 0:
        try:
            os._exit(_try_in_child(arena, tmp_path))
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert Reader(segments.paths.__getitem__).view(*extent).tobytes() == b"parent's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child-0", "me-0"]
    assert arena.write([b"more"]) == [(0, 64, 4)]
    arena.close()


def _try_in_child(arena: Arena, folder: Path) -> int:
    """0 when the child was refused the parent's arena, has no mapping of it, and could make its own."""
    with pytest.raises(ConfigurationError, match="another process than"):
        arena.write([b"child's"])
    arena.close()
    if arena.mine or "/me-0" in Path("/proc/self/maps").read_text():
        return 1
    own = Arena(folder, "child", lambda path, size: 0, lambda segment: None)
    return int(own.write([b"child's"]) != [(0, 0, 7)])
