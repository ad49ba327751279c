"""What a reader gathers is what was written, however rows lie; and what is not there is an error, not a signal."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transfer_queue.storage.conftest import Segments
from transfer_queue.errors import FieldLostError
from transfer_queue.storage import buffers, reader
from transfer_queue.storage.arena import Arena
from transfer_queue.storage.reader import Reader

FILE_BYTES = 20_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two segments of different bytes."""
    folder, rng = tmp_path_factory.mktemp("segments"), np.random.default_rng(0)
    paths = {5: folder / "five", 9: folder / "nine"}
    for path in paths.values():
        path.write_bytes(rng.bytes(FILE_BYTES))
    return paths


def ranges(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    return st.lists(st.tuples(st.sampled_from([5, 9]), st.integers(0, FILE_BYTES - 600), sizes), max_size=40)


@given(
    rows=st.one_of(ranges(st.integers(0, 600)), ranges(st.just(64)), st.just([(5, 64 * i, 64) for i in range(20)])),
    pooled_from=st.sampled_from([1, 10**6]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_are_gathered_in_their_order(
    files: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[int, int, int]],
    pooled_from: int,
) -> None:
    monkeypatch.setattr(buffers, "POOLED_FROM", pooled_from)
    monkeypatch.setattr(reader, "POOLED_FROM", pooled_from)
    gathered = Reader(files.__getitem__).gather(np.array(rows, np.int64).reshape(-1, 3))
    expected = b"".join(files[segment].read_bytes()[at : at + size] for segment, at, size in rows)

    assert gathered.tobytes() == expected
    assert gathered.flags.writeable
    gathered[:] = 0
    assert files[5].read_bytes() != bytes(FILE_BYTES)


def test_a_view_is_the_memory_itself_and_outlives_the_file(arena: Arena, segments: Segments) -> None:
    (extent,) = arena.write([b"old " * 5000])
    reads = Reader(segments.paths.__getitem__)
    view = reads.view(*extent)
    assert not view.flags.writeable
    arena.recycle([extent])
    assert arena.write([b"new " * 5000]) == [extent]
    assert view.tobytes() == b"new " * 5000  # which is why extents that are viewed must not be recycled

    os.unlink(segments.paths[0])
    reads.forget(0)
    reads.forget(0)
    assert view[-4:].tobytes() == b"new "
    assert reads.view(3, 0, 0).tobytes() == b""
    with pytest.raises(FieldLostError, match=r"segment 0 cannot be read: .*me-0: No such file"):
        reads.view(*extent)


@pytest.mark.parametrize(
    ("row", "said"),
    [((5, FILE_BYTES - 10, 11), "11 at 19990"), ((9, -1, 4), "4 at -1"), ((5, 4, -3), "-3 at 4")],
)
def test_what_lies_outside_of_a_file_is_lost(files: dict[int, Path], row: tuple[int, int, int], said: str) -> None:
    read = Reader(files.__getitem__)
    for rows in ([row], [(9, 0, 3), row]):
        with pytest.raises(FieldLostError, match=f"segment {row[0]} has {FILE_BYTES} bytes, not the {said}"):
            read.gather(np.array(rows))
    if row[2] > 0:
        with pytest.raises(FieldLostError):
            read.view(*row)


def test_an_empty_file_is_lost_too(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(FieldLostError, match="segment 0 has 0 bytes"):
        Reader(lambda segment: tmp_path / "empty").gather(np.array([[0, 0, 4]]))


def test_a_segment_is_mapped_once(files: dict[int, Path]) -> None:
    asked: list[int] = []

    def path_of(segment: int) -> Path:
        asked.append(segment)
        return files[segment]

    reads = Reader(path_of)
    for _ in range(3):
        reads.gather(np.array([[5, 0, 4], [9, 0, 4], [5, 9, 4]]))
    assert asked == [5, 9]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], buffers.BufferPool]:
    monkeypatch.setattr(buffers, "POOLED_FROM", 2**16)
    return buffers.BufferPool


def test_memory_returns_when_the_last_view_of_it_is_gone(pool: Callable[[int], buffers.BufferPool]) -> None:
    mine = pool(2**30)
    array = mine.take(100_000)
    array[:] = 7
    part = array[50_000:].view(np.int64).reshape(-1, 2)
    del array
    gc.collect()
    assert mine.idle_bytes == 0
    other = mine.take(100_000)
    other[:] = 8
    assert (part == np.full(8, 7, np.uint8).view(np.int64)[0]).all()

    address = part.ctypes.data - 50_000
    del part
    assert mine.idle_bytes >= 100_000
    assert mine.take(90_000).ctypes.data == address


def test_a_tensor_keeps_its_memory(pool: Callable[[int], buffers.BufferPool]) -> None:
    torch = pytest.importorskip("torch")
    mine = pool(2**30)
    tensor = torch.from_numpy(mine.take(80_000))
    gc.collect()
    assert mine.idle_bytes == 0
    del tensor
    assert mine.idle_bytes >= 80_000


def test_little_is_kept_and_nothing_much_too_large_is_given(pool: Callable[[int], buffers.BufferPool]) -> None:
    mine = pool(300_000)
    arrays = [mine.take(131_072) for _ in range(4)]
    del arrays
    assert mine.idle_bytes == 2 * 131_072
    small = mine.take(65_536)
    smaller = mine.take(65_000)
    assert small.nbytes == 65_536
    assert smaller.nbytes == 65_000
    assert mine.idle_bytes == 131_072
    large = mine.take(400_000)
    del large
    assert mine.idle_bytes == 0
