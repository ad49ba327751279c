"""Folders of runs: private, kept while held, swept when not, and chosen where there is room."""

import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer_queue.errors import ConfigurationError, ControllerLostError
from transfer_queue.storage import run_folder as module
from transfer_queue.storage.run_folder import LOCK, STAYS, ArenaPlace, RunFolder, choose, in_words, room, sweep

MIB = 2**20


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_folder_is_private_and_named_after_its_user(tmp_path: Path) -> None:
    folder = RunFolder.make(tmp_path)

    assert re.fullmatch(rf"tq-{os.getuid()}-[0-9a-f]{{8}}", folder.path.name)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "me-0").touch()
    (folder.path / "more").mkdir()
    folder.remove()
    folder.remove()
    assert names(tmp_path) == []


def test_a_folder_is_kept_while_anybody_holds_it(tmp_path: Path) -> None:
    maker = RunFolder.make(tmp_path)
    keeper = RunFolder.hold(maker.path)
    maker.leave()
    maker.leave()
    assert sweep(tmp_path) == []
    keeper.leave()
    assert sweep(tmp_path) == [maker.path]
    with pytest.raises(ControllerLostError, match=f"{maker.path} is gone"):
        RunFolder.hold(maker.path)


def test_a_sweep_touches_nothing_else(tmp_path: Path) -> None:
    uid = os.getuid()
    elsewhere = tmp_path / "elsewhere"
    dead = RunFolder.make(tmp_path)
    dead.leave()
    (dead.path / "link").symlink_to(elsewhere)
    kept = ["elsewhere", "tq-foreign", f"tq-{uid}-short", f"tq-{uid + 1}-01234567", f"tq-{uid}-89abcdef"]
    for name in kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").touch()
    (tmp_path / f"tq-{uid}-aaaaaaaa").symlink_to(elsewhere)
    (tmp_path / f"tq-{uid}-bbbbbbbb").write_text("a file")
    (tmp_path / f"tq-{uid}-cccccccc").mkdir()

    assert set(sweep(tmp_path)) == {tmp_path / f"tq-{uid}-cccccccc", dead.path}
    assert names(tmp_path) == sorted([*kept, f"tq-{uid}-aaaaaaaa", f"tq-{uid}-bbbbbbbb"])
    assert all(names(tmp_path / name) == ["data"] for name in kept)


def test_a_folder_of_another_user_is_left_alone(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = RunFolder.make(tmp_path)
    folder.leave()
    os.chown(folder.path, 12345, 12345)
    assert sweep(tmp_path) == []
    assert folder.path.exists()


def test_a_removal_that_was_cut_short_is_finished_by_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.make(tmp_path)
    for number in range(5):
        (folder.path / f"me-{number}").touch()
    unlink, removed = Path.unlink, []

    def die_after_two(path: Path, missing_ok: bool = False) -> None:
        removed.append(path)
        if len(removed) > 2:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", die_after_two)
        folder.remove()
    assert len(names(tmp_path)) == 1
    assert not folder.path.exists()
    folder.leave()
    assert len(sweep(tmp_path)) == 1
    assert names(tmp_path) == []


def test_a_maker_that_is_overtaken_by_a_sweep_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep just after mkdir, and one just after the lock file is there but not yet locked."""
    mkdir, flock, interfered = Path.mkdir, fcntl.flock, []

    def make_then_be_swept(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        mkdir(path, mode, parents, exist_ok)
        if len(interfered) < 1:
            interfered.extend(sweep(tmp_path))

    def be_swept_then_lock(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH and len(interfered) < 2:
            monkeypatch.setattr(fcntl, "flock", flock)
            interfered.extend(sweep(tmp_path))
        flock(descriptor, how)

    monkeypatch.setattr(Path, "mkdir", make_then_be_swept)
    monkeypatch.setattr(fcntl, "flock", be_swept_then_lock)
    folder = RunFolder.make(tmp_path)

    assert len(set(interfered)) == 2
    assert names(tmp_path) == [folder.path.name]
    assert sweep(tmp_path) == []
    folder.remove()


def test_makers_and_sweepers_at_once_lose_no_folder(tmp_path: Path) -> None:
    stop, made = threading.Event(), []

    def keep_sweeping() -> None:
        while not stop.is_set():
            sweep(tmp_path)

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for thread in sweepers:
        thread.start()
    for _ in range(100):
        made.append(RunFolder.make(tmp_path))
    stop.set()
    for thread in sweepers:
        thread.join()
    assert names(tmp_path) == sorted(folder.path.name for folder in made)
    for folder in made:
        folder.remove()


def test_a_forked_child_does_not_keep_its_parents_folder(tmp_path: Path) -> None:
    folder = RunFolder.make(tmp_path)
    told, tell = os.pipe()
    wait, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"x")
        os.read(wait, 1)
        os._exit(0)
    try:
        assert os.read(told, 1) == b"x"
        assert sweep(tmp_path) == []
        folder.leave()
        assert sweep(tmp_path) == [folder.path]
    finally:
        os.write(go_on, b"x")
        os.waitpid(child, 0)
        for descriptor in (told, tell, wait, go_on):
            os.close(descriptor)


def test_shared_memory_with_room_is_chosen_without_a_word(tmp_path: Path) -> None:
    dead = RunFolder.make(tmp_path)
    dead.leave()
    assert choose(MIB, memory=tmp_path) == ArenaPlace(tmp_path, None)
    assert names(tmp_path) == []
    assert choose(MIB, tmp_path, memory=Path("/none")) == ArenaPlace(tmp_path, None)


def test_too_little_shared_memory_means_files_and_a_warning(
    tiny_memory: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, files = tiny_memory(64), tmp_path / "files"
    files.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    place = choose(100 * MIB + 1, memory=memory)

    assert place.path == files
    assert place.warning == (
        f"the queue may hold 100 MiB of values, but {memory} has 64 MiB free: they lie in files under {files} instead, "
        f"which is slower. To keep them in memory give {memory} at least 100 MiB: Docker `--shm-size=101m`, Kubernetes "
        f"a volume `emptyDir: {{medium: Memory, sizeLimit: 101Mi}}` mounted at {memory}; or set queue.shm_dir to a "
        "folder with that much room"
    )
    with pytest.raises(ConfigurationError, match=rf"queue.shm_dir='{memory}' has 64 MiB free, .* hold 100 MiB"):
        choose(100 * MIB, memory)


def test_a_dead_run_in_shared_memory_is_removed_before_room_is_measured(tiny_memory: Callable[[int], Path]) -> None:
    memory = tiny_memory(8)
    dead = RunFolder.make(memory)
    (dead.path / "me-0").write_bytes(bytes(6 * MIB))
    assert choose(4 * MIB, memory=memory).path != memory
    dead.leave()
    assert choose(4 * MIB, memory=memory) == ArenaPlace(memory, None)


def test_without_shared_memory_only_linux_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    missing = tmp_path / "none"
    monkeypatch.setattr(module.sys, "platform", "linux")
    place = choose(MIB, memory=missing)
    assert place.path == tmp_path
    assert f"but {missing} is missing or not writable: they" in str(place.warning)
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert choose(MIB, memory=missing) == ArenaPlace(tmp_path, None)
    assert ", where only " in str(choose(2**60, memory=missing).warning)


@pytest.mark.parametrize(("make", "said"), [(False, "is not there"), (True, "is not a folder that this user may")])
def test_a_configured_folder_must_be_usable(tmp_path: Path, make: bool, said: str) -> None:
    configured = tmp_path / "configured"
    if make:
        configured.write_text("a file")
    with pytest.raises(ConfigurationError, match=f"queue.shm_dir='{configured}' {said}"):
        choose(1, configured)


def test_room_is_what_a_user_may_write(tiny_memory: Callable[[int], Path]) -> None:
    memory = tiny_memory(8)
    assert room(memory) == 8 * MIB
    (memory / LOCK).write_bytes(bytes(MIB))
    assert room(memory) == 7 * MIB


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536 * MIB, "1.5 GiB"), (100 * MIB, "100 MiB")],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


def test_a_folder_whose_run_comes_back_outlives_a_sweep_but_not_for_ever(tmp_path: Path) -> None:
    first = RunFolder.make(tmp_path)
    first.stay()
    (first.path / "keys").write_text("secret")
    first.leave()
    assert sweep(tmp_path) == []
    again = RunFolder.make_again(first.path)
    assert (again.path / "keys").read_text() == "secret"
    again.leave()
    os.utime(first.path / STAYS, (0, 0))

    assert sweep(tmp_path) == [first.path]
    fresh = RunFolder.make_again(first.path)
    assert names(fresh.path) == [LOCK]
    assert fresh.path.stat().st_mode & 0o777 == 0o700
    fresh.remove()


def test_what_is_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / f"tq-{os.getuid()}-0123abcd"
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="in the way"):
        RunFolder.make_again(path)
