"""An arena: what was written is where it says, comes back range by range, and fails in words."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.transfer_queue.storage.conftest import Segments
from transfer_queue.errors import (
    ConfigurationError,
    ControllerLostError,
    ControllerTimeoutError,
    ExtentError,
    StorageFullError,
)
from transfer_queue.storage import arena as module
from transfer_queue.storage.arena import Arena, Extent
from transfer_queue.storage.extents import PAGE, PAGED_FROM
from transfer_queue.storage.segment_file import segment_files

MIB = 2**20


def content(segments: Segments, extent: Extent) -> bytes:
    """The bytes of an extent, read from its file."""
    with open(segments.paths[extent.segment], "rb") as file:
        file.seek(extent.offset)
        return file.read(extent.size)


def test_frames_of_one_put_lie_side_by_side_aligned_and_whole(arena: Arena, segments: Segments) -> None:
    numbers = np.arange(30_000, dtype=np.int64)
    frames = [b"abc", bytearray(b"x" * 100), b"", memoryview(numbers), numbers.astype(np.float32)]
    extents = arena.write(frames)

    assert [content(segments, extent) if extent.size else b"" for extent in extents] == [
        b"abc", b"x" * 100, b"", numbers.tobytes(), numbers.astype(np.float32).tobytes()
    ]  # fmt: skip
    assert [extent.offset for extent in extents] == [0, 64, 0, PAGE, PAGE + 240_000 + (-240_000 % PAGE)]
    assert arena.used == sum(extent.size for extent in extents)
    assert {extent.segment for extent in extents if extent.size} == {0}


def test_a_segment_is_private_reserved_and_as_large_as_all_before_it(arena: Arena, segments: Segments) -> None:
    for _ in range(5):
        arena.write([bytes(700_000)])
    arena.write([bytes(6 * MIB)])

    assert list(segments.sizes.values()) == [MIB, MIB, 2 * MIB, 4 * MIB, 6 * MIB][: len(segments.sizes)]
    assert list(segments.sizes.values())[-1] == 6 * MIB
    for segment, path in segments.paths.items():
        status = os.stat(path)
        assert status.st_mode & 0o777 == 0o600
        assert status.st_blocks * 512 >= status.st_size == segments.sizes[segment]


def test_rows_come_back_in_any_order_and_their_room_is_used_again(arena: Arena, segments: Segments) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        (extent,) = arena.write([bytes(900_000)])
        rows = np.stack([np.full(900, 0), extent.offset + 1000 * rng.permutation(900), np.full(900, 1000)], axis=1)
        arena.recycle(rows[:400])
        arena.recycle([Extent(*row) for row in rows[400:].tolist()])
    assert (arena.used, arena.size, segments.sizes) == (0, MIB, {0: MIB})


def test_what_does_not_fit_side_by_side_is_scattered(arena: Arena, segments: Segments) -> None:
    quarters = arena.write([bytes(MIB // 4)] * 4)
    arena.recycle([quarters[0], quarters[2]])
    assert arena.write([b"a" * (MIB // 4), b"", b"b" * (MIB // 4)]) == [quarters[0], (0, 0, 0), quarters[2]]
    assert len(segments.sizes) == 1


def test_a_range_that_comes_back_twice_is_an_error_and_the_others_are_taken(arena: Arena) -> None:
    first, second = arena.write([bytes(1000), bytes(1000)])
    with pytest.raises(ExtentError, match="segment 9 has no 5 bytes"):
        arena.recycle([first, Extent(9, 0, 5), second])
    with pytest.raises(ExtentError, match="freed twice"):
        arena.recycle([first])
    assert arena.used == 0


def test_a_frame_that_has_no_plain_bytes_costs_nothing(arena: Arena) -> None:
    wrong: list[Any] = [np.zeros((4, 4))[:, 1], "text"]
    for frame in wrong:
        with pytest.raises((ValueError, TypeError, BufferError)):
            arena.write([b"abc", frame])
    assert arena.used == 0


def test_a_copy_that_fails_gives_its_room_back(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    arena.write([b"abc"])
    monkeypatch.setattr(arena, "_bytes", {})
    with pytest.raises(KeyError):
        arena.write([bytes(1000)])
    assert arena.used == 3


def test_shrinking_keeps_the_largest_free_segment_and_what_is_used(arena: Arena, segments: Segments) -> None:
    extents = [arena.write([bytes(MIB)])[0] for _ in range(4)]
    assert arena.shrink() == 0
    arena.recycle(extents[:1] + extents[2:])

    assert (arena.shrink(), arena.size) == (MIB, 3 * MIB)
    assert segments.detached == [0]
    assert sorted(path.name for path in segment_files(Path(segments.paths[1]).parent, "me")) == ["me-1", "me-2"]
    assert arena.write([bytes(2 * MIB)]) == [(2, 0, 2 * MIB)]


def test_closing_leaves_what_others_may_still_read(tmp_path: Path, segments: Segments) -> None:
    arena = Arena(tmp_path, "me", segments.attach, segments.detach)
    kept, gone = (arena.write([each * MIB])[0] for each in (b"a", b"b"))
    arena.recycle([gone])
    arena.close()
    arena.close()

    assert content(segments, kept) == b"a" * MIB
    assert (segments.detached, [path.name for path in tmp_path.iterdir()]) == ([1], ["me-0"])
    with pytest.raises(ConfigurationError, match="arena 'me' was closed"):
        arena.write([b"abc"])


def test_closing_without_a_controller_still_closes(tmp_path: Path, segments: Segments) -> None:
    def unreachable(segment: int) -> None:
        raise ControllerTimeoutError("nobody answers")

    arena = Arena(tmp_path, "me", segments.attach, unreachable)
    arena.recycle(arena.write([b"abc"]))
    arena.close()
    assert not arena.mine
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_cannot_be_attached_leaves_no_file(tmp_path: Path, segments: Segments) -> None:
    def refuse(path: str, size: int) -> int:
        raise ControllerTimeoutError("nobody answers")

    with pytest.raises(ControllerTimeoutError):
        Arena(tmp_path, "me", refuse, segments.detach).write([b"abc"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ended_is_named(tmp_path: Path, segments: Segments) -> None:
    with pytest.raises(ControllerLostError, match="gone is gone: the run"):
        Arena(tmp_path / "gone", "me", segments.attach, segments.detach).write([b"abc"])


def test_an_owner_is_a_plain_name(tmp_path: Path, segments: Segments) -> None:
    with pytest.raises(ConfigurationError, match=r"owner '\.\./x'"):
        Arena(tmp_path, "../x", segments.attach, segments.detach)


def test_only_the_files_of_one_incarnation_are_its_own(tmp_path: Path) -> None:
    for name in ("a-0", "a-12", "a-1-0", "aa-0", "lock", "a-x"):
        (tmp_path / name).touch()
    assert [path.name for path in segment_files(tmp_path, "a")] == ["a-0", "a-12"]


def test_a_full_file_system_is_an_error_that_passes(tiny_memory: Callable[[int], Path], segments: Segments) -> None:
    memory = tiny_memory(3)
    arena = Arena(memory, "me", segments.attach, segments.detach)
    extents = [arena.write([bytes(600_000)])[0] for _ in range(3)]
    assert segments.sizes == {0: MIB, 1: MIB, 2: MIB}
    with pytest.raises(
        StorageFullError, match=rf"{memory} has no room for 1003520 bytes more: 0 of 3145728 .* and 1800000 of"
    ) as full:
        arena.write([bytes(1_000_000)])

    assert full.value.details["needed"] == 1_003_520
    assert len(list(memory.iterdir())) == len(segments.sizes)
    arena.recycle(extents)
    assert arena.write([b"x" * 1_000_000])[0].size == 1_000_000
    arena.close()


def test_a_segment_is_smaller_where_room_is_short(
    tiny_memory: Callable[[int], Path], segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALLEST_SEGMENT", 64 * MIB)
    arena = Arena(tiny_memory(5), "me", segments.attach, segments.detach)
    arena.write([b"abc"])
    assert segments.sizes == {0: 4 * MIB}
    arena.close()


def test_without_fallocate_space_is_reserved_by_writing(
    tiny_memory: Callable[[int], Path], segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    arena = Arena(tiny_memory(3), "me", segments.attach, segments.detach)
    arena.write([bytes(MIB)])
    assert os.stat(segments.paths[0]).st_blocks * 512 == MIB
    with pytest.raises(StorageFullError):
        arena.write([bytes(3 * MIB)])
    arena.close()


def test_threads_share_an_arena(arena: Arena, segments: Segments) -> None:
    failures: list[str] = []

    def work(letter: bytes) -> None:
        rng = np.random.default_rng(letter[0])
        kept: list[tuple[Extent, bytes]] = []
        for _ in range(60):
            frames = [letter * int(size) for size in rng.integers(1, 2 * PAGED_FROM, 3)]
            kept += zip(arena.write(frames), frames, strict=True)
            rng.shuffle(kept)  # type: ignore[arg-type]
            while len(kept) > 6:
                extent, frame = kept.pop()
                if content(segments, extent) != frame:
                    failures.append(letter.decode())
                arena.recycle([extent])
        arena.recycle([extent for extent, _ in kept])

    threads = [threading.Thread(target=work, args=(bytes([ord("a") + i]),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, arena.used) == ([], 0)


def test_nobody_waits_for_a_segment_that_is_being_attached(tmp_path: Path, segments: Segments) -> None:
    """`attach` itself may write, recycle and measure in the meantime, from other threads."""
    attaching, go_on = threading.Event(), threading.Event()

    def slow(path: str, size: int) -> int:
        if segments.sizes:
            attaching.set()
            assert go_on.wait(10)
        return segments.attach(path, size)

    arena = Arena(tmp_path, "me", slow, segments.detach)
    first = arena.write([bytes(MIB // 2)])
    thread = threading.Thread(target=arena.write, args=([bytes(MIB)],))
    thread.start()
    assert attaching.wait(10)
    second = arena.write([bytes(MIB // 4)])
    arena.recycle(first + second)
    assert arena.used == 0
    go_on.set()
    thread.join(10)
    assert arena.used == MIB
    arena.close()
