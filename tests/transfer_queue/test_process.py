"""The controller as a process: how it starts, how it ends, and what its end means to others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.transfer_queue import samplers_for_tests as made
from tests.transfer_queue.test_client import Connect, Start, in_background, wait_for_waiting
from transfer_queue import (
    ConfigurationError,
    ControllerLostError,
    ControllerTimeoutError,
    GroupError,
    GRPOSampler,
    RequestError,
    SamplerError,
    TransferQueueClient,
    TransferQueueController,
    supervisor,
    wire,
)
from transfer_queue.errors import ProtocolError
from transfer_queue.home import LONGEST, Home
from transfer_queue.transport.channel import UnixChannel, unix_socket

PARENT = """
import os, sys, time
from transfer_queue import TransferQueueClient, TransferQueueController
controller = TransferQueueController.start(global_batch_size=1)
with TransferQueueClient("me", controller.get_info()) as client:
    client.put({"x": ["1"]})
print(controller.pid, controller._home.socket.path, flush=True)
"""


def gone(pid: int, folder: str, within_s: float = 5.0) -> bool:
    """Whether process and folder disappear in time."""
    for _ in range(int(within_s / 0.02)):
        if not os.path.exists(f"/proc/{pid}") and not os.path.exists(folder):
            return True
        time.sleep(0.02)
    return False


def test_a_controller_is_a_process_with_a_private_folder_and_both_end_with_it() -> None:
    with TransferQueueController.start(global_batch_size=1) as controller:
        endpoint = controller.get_info()["endpoint"]
        folder = Path(endpoint.removeprefix("unix://")).parent

        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(endpoint) - len("unix://") <= LONGEST
        assert controller.get_info()["pid"] == controller.pid != os.getpid()
    assert gone(controller.pid, str(folder), 0.1)


def test_stop_may_be_called_twice_and_sigterm_ends_it_cleanly(start: Start) -> None:
    controller = start()
    os.kill(controller.pid, signal.SIGTERM)
    assert controller._supervisor.process.wait(5) == 0
    assert not Path(controller._home.socket.path).exists()
    controller.stop()
    controller.stop()


def test_who_waits_for_a_durable_queue_sees_its_end_and_no_restart(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.put({"x": ["1"]}, global_step=0)
    codes: list[int] = []
    waits = threading.Thread(target=lambda: codes.append(controller.wait()))
    waits.start()
    first = controller.pid
    os.kill(first, signal.SIGKILL)
    assert client.stats().rows_put_total == 1  # answered by the next process
    assert controller.pid != first
    assert waits.is_alive()
    controller.stop()
    waits.join(10)

    assert codes == [0]


def test_who_waits_hears_that_a_durable_queue_is_given_up(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 0)
    controller = start(journal_dir=tmp_path / "journal")
    os.kill(controller.pid, signal.SIGKILL)

    assert controller.wait() == -signal.SIGKILL


def test_interrupting_the_terminal_does_not_end_the_queue(start: Start, connect: Connect) -> None:
    controller = start()
    os.kill(controller.pid, signal.SIGINT)
    time.sleep(0.1)

    assert connect(controller).stats().partitions == []


def test_a_killed_controller_is_a_typed_error_for_who_waits_and_who_comes_later(start: Start, connect: Connect) -> None:
    controller = start()
    client, late = connect(controller), connect(controller)
    waiting = in_background(lambda: client.get_meta(["x"], 1, 0, "train", timeout_s=60))
    wait_for_waiting(connect(controller), "train")
    began = time.monotonic()
    os.kill(controller.pid, signal.SIGKILL)
    with pytest.raises(
        ControllerLostError, match=r"went away while get_meta waited for 1 rows of step 0 for task 'train'"
    ):
        waiting()
    assert time.monotonic() - began < 1.0
    with pytest.raises(ControllerLostError):
        client.put({"x": ["1"]})
    controller.wait()
    with pytest.raises(ControllerLostError, match="nobody listens"):
        late.stats()
    assert time.monotonic() - began < 6.0
    controller.stop()

    assert not Path(controller._home.socket.path).exists()


def test_a_controller_that_is_stuck_is_another_error(start: Start) -> None:
    controller = start()
    with TransferQueueClient("me", controller.get_info(), call_timeout_s=-4.5) as client:
        client._give_back(client._take())
        os.kill(controller.pid, signal.SIGSTOP)
        try:
            with pytest.raises((ControllerTimeoutError, ControllerLostError)):
                client.stats()
        finally:
            os.kill(controller.pid, signal.SIGCONT)


@pytest.mark.parametrize("ending", ["os._exit(3)", "os.kill(os.getpid(), 9)", "sys.exit()", "raise SystemExit(4)", ""])
def test_nothing_is_left_when_the_parent_ends(ending: str) -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT + ending], stdout=subprocess.PIPE, text=True, check=False)
    pid, folder = parent.stdout.split()

    assert gone(int(pid), folder)


def test_a_forked_child_of_a_killed_parent_does_not_keep_the_controller() -> None:
    program = PARENT + "if os.fork() == 0:\n    time.sleep(20)\n    os._exit(0)\nos.kill(os.getpid(), 9)"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    parent.wait(10)
    parent.stdout.close()

    assert gone(int(pid), folder)


def test_a_client_can_be_used_in_a_forked_child_which_ends_nothing() -> None:
    program = """
import os
from transfer_queue import TransferQueueClient, TransferQueueController
with TransferQueueController.start(global_batch_size=4) as controller:
    with TransferQueueClient("me", controller.get_info()) as client:
        client.put({"x": ["1"]}, global_step=0)
        child = os.fork()
        if child == 0:
            client.put({"x": ["2"]}, global_step=0)
            controller.stop()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(list(client.get_data(client.get_meta(["x"], 2, 0, "t"))["x"]))
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "['1', '2']"


@pytest.mark.parametrize(
    ("arguments", "kind", "named"),
    [
        ({"global_batch_size": 0}, ConfigurationError, "global_batch_size must be at least 1, not 0"),
        ({"global_batch_size": 2.0}, ConfigurationError, "whole number, not 2.0"),
        ({"global_batch_size": 4, "num_n_samples": -1}, ConfigurationError, "num_n_samples"),
        ({"global_batch_size": 4, "num_n_sample": 2}, ConfigurationError, "did you mean 'num_n_samples'"),
        ({"global_batch_size": 4, "tasks": "train"}, ConfigurationError, "one string"),
        ({"global_batch_size": 4, "tasks": ["a", "a"]}, ConfigurationError, "one task twice"),
        ({"global_batch_size": 4, "num_n_samples": 4, "sampler": GRPOSampler(2)}, GroupError, r"GRPOSampler\(2\)"),
        ({"global_batch_size": 4, "task_samplers": {"t": GRPOSampler(2)}}, GroupError, r"GRPOSampler\(2\)"),
        ({"global_batch_size": 4, "sampler": lambda: GRPOSampler(1)}, SamplerError, "a lambda"),
        ({"global_batch_size": 4, "sampler": made.Unfit}, SamplerError, "no disk"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("begin", [TransferQueueController.start, TransferQueueController.remote])
def test_bad_arguments_raise_in_the_caller(
    begin: Callable[..., object], arguments: dict[str, object], kind: type[Exception], named: str
) -> None:
    if begin is TransferQueueController.remote and named == "a lambda":
        return
    with pytest.raises(kind, match=named):
        begin(**arguments)


def test_strangers_on_the_socket_harm_nobody(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    deadline = time.monotonic() + 20
    stranger = UnixChannel(unix_socket(controller.get_info()["endpoint"].removeprefix("unix://"), deadline), 1 << 20)
    try:
        for frames in ([b""], [b"\x80\x04pickled"], [b"\xc0"] * 3, [os.urandom(100)]):
            stranger.send(frames, deadline)
            answer = wire.decode_reply(stranger.receive(deadline)[0])
            assert isinstance(answer.body, wire.Failure)
            assert answer.body.name == ProtocolError.__name__
    finally:
        stranger.close()

    assert client.stats().partitions == []


def test_an_exception_nobody_foresaw_is_its_callers_reply(start: Start, connect: Connect) -> None:
    client = connect(start())
    with pytest.raises(RequestError, match="OverflowError"):
        client.request(wire.Done, wire.GetData([2**63 - 1 + 2**62], ["x"]), "get_data")

    assert client.stats().partitions == []


def test_orders_that_are_none_end_the_process() -> None:
    run = subprocess.run([sys.executable, "-m", "transfer_queue.process"], input=b"", capture_output=True, check=False)

    assert (run.returncode, run.stdout) == (0, b"")


def test_folders_of_killed_controllers_are_swept_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    alive, killed = Home.make("memory"), Home.make("memory")
    killed.socket.leave()
    (tmp_path / "tq-foreign").mkdir()

    next_one = Home.make("memory")
    assert sorted(tmp_path.iterdir()) == sorted([alive.socket.path, next_one.socket.path, tmp_path / "tq-foreign"])
    for home in (alive, alive, next_one):
        home.remove()
    assert [folder.name for folder in tmp_path.iterdir()] == ["tq-foreign"]


def test_a_deep_temporary_folder_is_not_used_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    home = Home.make("memory")
    try:
        assert len(os.fsencode(home.socket_path)) < LONGEST
    finally:
        home.remove()


def test_messages_of_another_version_are_refused() -> None:
    with pytest.raises(ProtocolError):
        wire.decode_request(msgspec.msgpack.encode([1, "me", ["no_such_request"]]))
    with pytest.raises(ProtocolError):
        wire.decode_request(wire.encode(wire.Request(1, "me", wire.GetStats())).replace(b"me", b"\xff\xfe"))
