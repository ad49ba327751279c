"""The folder of the socket: private, short, shared by whoever adopts it, and swept when nobody holds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_queue import ConfigurationError
from transfer_queue.socket_directory import LOCK, LONGEST, SocketDirectory, sweep


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_new_folder_is_private_and_goes_with_remove(parent: Path) -> None:
    directory = SocketDirectory()

    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / LOCK).stat().st_mode & 0o777 == 0o600
    assert directory.endpoint == f"unix://{directory.path}/queue" == f"unix://{directory.socket}"
    directory.remove()
    directory.remove()
    assert list(parent.iterdir()) == []


def test_a_folder_stays_while_its_owner_or_one_that_adopted_it_lives(parent: Path) -> None:
    owner = SocketDirectory()
    adopted, again = SocketDirectory.adopt(owner.path), SocketDirectory.adopt(str(owner.path))
    assert adopted.endpoint == again.endpoint == owner.endpoint
    for each in (owner, adopted, again):
        assert sweep(parent, older_than_s=-1) == []
        each.release()
        each.release()

    assert sweep(parent, older_than_s=-1) == [owner.path]


def test_the_lock_of_a_killed_process_is_free_and_that_of_a_living_one_is_not(parent: Path) -> None:
    owner = SocketDirectory()
    program = (
        "import sys; from transfer_queue.socket_directory import SocketDirectory;"
        "kept = SocketDirectory.adopt(sys.argv[1]); print('adopted', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(owner.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"adopted\n"
        owner.release()
        assert sweep(parent, older_than_s=-1) == []
        process.kill()

    assert sweep(parent, older_than_s=-1) == [owner.path]


def test_a_folder_that_is_not_there_is_made(parent: Path) -> None:
    adopted = SocketDirectory.adopt(parent / "runs" / "mine")
    try:
        assert adopted.path.stat().st_mode & 0o777 == 0o700
    finally:
        adopted.remove()


def test_a_folder_that_others_can_enter_or_that_is_too_deep_is_refused(parent: Path) -> None:
    (parent / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match=r"closed to others \(chmod 700\).* mode 755"):
        SocketDirectory.adopt(parent / "open")
    with pytest.raises(ConfigurationError, match="too long for a socket"):
        SocketDirectory.adopt(parent / ("x" * LONGEST))

    assert [each.name for each in parent.iterdir()] == ["open"]


def test_a_folder_that_is_swept_while_it_is_adopted_is_an_error(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = SocketDirectory()
    owner.release()

    def swept_meanwhile(_lock: int, _how: int) -> None:
        os.unlink(owner.path / LOCK)

    monkeypatch.setattr("fcntl.flock", swept_meanwhile)
    with pytest.raises(ConfigurationError, match="being swept"):
        SocketDirectory.adopt(owner.path)
