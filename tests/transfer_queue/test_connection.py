"""A client's connection, blocking and asyncio: replies, deadlines, deaths, forks, and a controller that comes back."""

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.transfer_queue.transport.processes import controller
from tests.transfer_queue.transport.serving import Answering, serving, until
from transfer_queue import ConfigurationError, ControllerLostError, ControllerTimeoutError, wire
from transfer_queue.connection import AsyncConnection, Connection
from transfer_queue.errors import ProtocolError
from transfer_queue.server import Server
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.framing import Decoder, framed
from transfer_queue.transport.unix import UnixListener

Call = Callable[..., tuple[wire.ReplyBody, Sequence[Any]]]


class Blocking:
    """A blocking connection with the interface of the tests."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.connection = Connection(info)

    def call(self, client: str = "me", values: Sequence[Any] = (), timeout_s: float = 20.0) -> Any:
        return self.connection.call(client, wire.GetStats(), values, timeout_s, lambda: "the test waited")

    def close(self) -> None:
        self.connection.close()


class Asynchronous:
    """The same over an asyncio connection with an event loop of its own."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.runner = asyncio.Runner()
        self.connection = AsyncConnection(info)

    def call(self, client: str = "me", values: Sequence[Any] = (), timeout_s: float = 20.0) -> Any:
        waits = lambda: "the test waited"  # noqa: E731
        return self.runner.run(self.connection.call(client, wire.GetStats(), values, timeout_s, waits))

    def close(self) -> None:
        self.connection.close()
        self.runner.close()


Kind = type[Blocking] | type[Asynchronous]
Make = Callable[[dict[str, Any]], Blocking | Asynchronous]


@pytest.fixture(params=[Blocking, Asynchronous])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Blocking | Asynchronous] = []

    def begin(info: dict[str, Any]) -> Blocking | Asynchronous:
        kind: Kind = request.param
        made.append(kind(info))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue")


@pytest.fixture
def info(path: str) -> dict[str, Any]:
    return {"endpoint": f"unix://{path}"}


@pytest.fixture
def server(path: str) -> Iterator[Server[Answering]]:
    with serving([UnixListener(path, Descriptors())]) as running:
        yield running


def test_requests_are_numbered_in_a_session(server: Server[Answering], info: dict[str, Any], make: Make) -> None:
    first, second = make(info), make(info)
    for client in (first, first, second):
        assert client.call(values=[b"one", b"two"]) == (wire.Done(), [b"one", b"two"])
    sessions = [each.session for each in server.receiver.requests]

    assert [each.sequence for each in server.receiver.requests] == [1, 2, 1]
    assert sessions[0] == sessions[1] == first.connection.session != sessions[2]
    assert all(0 <= session < 1 << 63 for session in sessions)


def test_large_values_go_both_ways(server: Server[Answering], info: dict[str, Any], make: Make) -> None:
    values = [os.urandom(3_000_000), b"", os.urandom(20), memoryview(os.urandom(200_000)).cast("Q")]

    assert [bytes(each) for each in make(info).call(values=values)[1]] == [bytes(each) for each in values]


def test_a_reply_that_does_not_come_is_a_timeout_that_says_what_waited(
    server: Server[Answering], info: dict[str, Any], make: Make
) -> None:
    client = make(info)
    client.call()
    began = time.monotonic()
    with pytest.raises(ControllerTimeoutError, match=r"did not answer for 0\.\d s while the test waited: it is alive"):
        client.call("silent", timeout_s=0.2)

    assert 0.2 <= time.monotonic() - began < 10
    assert not client.connection.connected
    assert client.call(values=[b"x"])[1] == [b"x"]


def test_sending_obeys_the_deadline_too(path: str, info: dict[str, Any], make: Make) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen()
        with pytest.raises(ControllerTimeoutError, match="the test waited"):
            make(info).call(values=[bytes(10_000_000)], timeout_s=0.2)


def test_nobody_listens(info: dict[str, Any], make: Make) -> None:
    with pytest.raises(ControllerLostError, match=r"nobody listens at unix://.*: the controller has ended"):
        make(info).call()


def test_a_full_queue_of_newcomers_is_waited_for(path: str, info: dict[str, Any], make: Make) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        began = time.monotonic()
        with pytest.raises((ControllerLostError, ControllerTimeoutError)):
            make(info).call(timeout_s=0.3)

        assert time.monotonic() - began >= 0.3


def test_a_controller_that_dies_is_told_at_once(path: str, info: dict[str, Any], make: Make) -> None:
    with controller(path) as (process, _):
        client = make(info)
        client.call()
        killer = threading.Timer(0.1, process.kill)
        killer.start()
        with pytest.raises(ControllerLostError, match="went away while the test waited: its process ended"):
            client.call("silent")
        killer.join()
        process.wait(20)
        with pytest.raises(ControllerLostError, match="nobody listens"):
            client.call()


def test_a_durable_controller_is_asked_again_with_the_same_request(path: str, info: dict[str, Any], make: Make) -> None:
    client = make({**info, "durable": True})
    outcome: list[Any] = []
    with controller(path) as (process, _):
        client.call()
        waiting = threading.Thread(target=lambda: outcome.append(client.call("silent", [b"kept"], 60)))
        waiting.start()
        time.sleep(0.1)
        process.kill()
        process.wait(20)
    with serving([UnixListener(path, Descriptors())]) as server:
        until(lambda: bool(server.receiver.requests))
        again = server.receiver.requests[0]
        link = server.receiver.links[0]
        header = wire.encode(wire.Reply(again.sequence, wire.Done()))
        server.submit(lambda: link.send([header, b"kept"])).result(20)
        waiting.join(20)

    assert (again.session, again.sequence, again.client) == (client.connection.session, 2, "silent")
    assert outcome == [(wire.Done(), [b"kept"])]


def test_a_durable_controller_that_stays_away_is_lost_at_the_deadline(info: dict[str, Any], make: Make) -> None:
    began = time.monotonic()
    with pytest.raises(ControllerLostError, match=r"nobody listens.*; it did not come back for 0\.\d s"):
        make({**info, "durable": True}).call(timeout_s=0.3)

    assert 0.3 <= time.monotonic() - began < 10


def test_arguments_that_cannot_be_sent_leave_the_connection_usable(
    server: Server[Answering], info: dict[str, Any], make: Make
) -> None:
    client = make(info)
    with pytest.raises(ConfigurationError, match="surrogates"):
        client.call("\ud800")
    with pytest.raises(ProtocolError, match="256 parts"):
        client.call(values=[b""] * 255)

    assert client.call(values=[b"x"])[1] == [b"x"]


def test_a_failure_that_answers_no_request_is_the_reply_and_the_end(
    path: str, info: dict[str, Any], make: Make
) -> None:
    failure = wire.Failure("ConfigurationError", "full", {})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            with listener.accept()[0] as peer:
                peer.sendall(framed([wire.encode(wire.Reply(0, failure))])[0])

        thread = threading.Thread(target=refuse)
        thread.start()
        client = make(info)
        assert client.call(values=[bytes(1_000_000)])[0] == failure
        thread.join(20)

    assert not client.connection.connected


def test_a_late_reply_is_never_taken_for_another(path: str, info: dict[str, Any], make: Make) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer_twice() -> None:
            with listener.accept()[0] as peer:
                decoder = Decoder()
                decoder.feed(peer.recv(1 << 16))
                for sequence in (7, 1):
                    peer.sendall(framed([wire.encode(wire.Reply(sequence, wire.Done(sequence == 1)))])[0])

        thread = threading.Thread(target=answer_twice)
        thread.start()
        assert make(info).call()[0] == wire.Done(True)
        thread.join(20)


def test_a_cancelled_call_hangs_up(server: Server[Answering], info: dict[str, Any]) -> None:
    async def cancel() -> None:
        connection = AsyncConnection(info)
        call = asyncio.create_task(connection.call("silent", wire.GetStats(), [], 60, lambda: "waiting"))
        while not server.receiver.requests:
            await asyncio.sleep(0.005)
        with pytest.raises(ConfigurationError, match="in a call already"):
            await connection.call("me", wire.GetStats(), [], 60, lambda: "waiting")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not connection.connected
        assert await connection.call("me", wire.GetStats(), [b"x"], 60, lambda: "waiting") == (wire.Done(), [b"x"])
        connection.close()
        connection.close()

    asyncio.run(cancel())
    until(lambda: len(server.receiver.over) == 2)
    assert [each.sequence for each in server.receiver.requests] == [1, 2]


def test_many_asyncio_calls_at_once(server: Server[Answering], info: dict[str, Any]) -> None:
    async def one(number: int) -> Any:
        connection = AsyncConnection(info)
        try:
            return (await connection.call("me", wire.GetStats(), [b"%d" % number], 60, lambda: "waiting"))[1]
        finally:
            connection.close()

    async def everything() -> list[Any]:
        return await asyncio.gather(*(one(number) for number in range(100)))

    assert asyncio.run(everything()) == [[b"%d" % number] for number in range(100)]


def test_an_interrupted_call_hangs_up(server: Server[Answering], info: dict[str, Any]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    connection = Connection(info)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            connection.call("silent", wire.GetStats(), [], 20, lambda: "waiting")
    finally:
        signal.signal(signal.SIGALRM, before)

    assert not connection.connected


def test_signals_do_not_put_the_deadline_off(server: Server[Answering], info: dict[str, Any]) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    connection = Connection(info)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        began = time.monotonic()
        with pytest.raises(ControllerTimeoutError):
            connection.call("silent", wire.GetStats(), [], 0.3, lambda: "waiting")
        assert time.monotonic() - began < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_forked_child_has_its_own_session_and_leaves_the_parents_connection_alone(
    server: Server[Answering], info: dict[str, Any]
) -> None:
    connection = Connection(info)
    connection.call("parent", wire.GetStats(), [], 20, lambda: "waiting")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ours = connection.connected
            connection.close()
            connection.call("child", wire.GetStats(), [], 20, lambda: "waiting")
            code = int(ours)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.call("parent", wire.GetStats(), [b"x"], 20, lambda: "waiting") == (wire.Done(), [b"x"])
    connection.close()
    requests = server.receiver.requests

    assert [(each.client, each.sequence) for each in requests] == [("parent", 1), ("child", 1), ("parent", 2)]
    assert requests[0].session == requests[2].session != requests[1].session


def test_the_death_of_a_parent_shows_though_its_child_lives(server: Server[Answering], info: dict[str, Any]) -> None:
    program = f"""
import os, time
from transfer_queue import wire
from transfer_queue.connection import Connection
connection = Connection({info!r})
connection.call("parent", wire.GetStats(), [], 20, lambda: "waiting")
if os.fork():
    os.kill(os.getpid(), 9)
print(os.getpid(), flush=True)
time.sleep(30)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        until(lambda: bool(server.receiver.over))
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
        parent.wait(20)


def test_a_client_without_descriptors_is_told_so(server: Server[Answering], info: dict[str, Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1, hard))
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        assert len(kept) < used + 100
    try:
        with pytest.raises(ConfigurationError, match=r"no file descriptor left.*ulimit -n"):
            Connection(info).call("me", wire.GetStats(), [], 20, lambda: "waiting")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in kept:
            os.close(each)


def test_beyond_the_file_limit_a_newcomer_gets_a_sentence_and_nobody_else_is_harmed(
    path: str, info: dict[str, Any]
) -> None:
    with controller(path, "48") as (process, _), ExitStack() as stack:
        made = [stack.enter_context(closing(Connection(info))) for _ in range(61)]
        replies = [ask(each) for each in made[:60]]
        refused = [f"{each.name}: {each.message}" for each in replies if isinstance(each, wire.Failure)]
        served = [each for each, reply in zip(made, replies, strict=False) if reply == wire.Done()]

        assert 10 < len(served) <= 48 - 48 // 4  # the rest is the reserve
        assert len(refused) == 60 - len(served)
        assert refused == refused[:1] * len(refused)
        assert re.match(r"ConfigurationError: .* limit of open files is 48 \(ulimit -n\)", refused[0])
        assert [ask(each) for each in served] == [wire.Done()] * len(served)
        assert process.poll() is None
        served[0].close()
        until(lambda: ask(made[60]) == wire.Done())


def ask(connection: Connection) -> wire.ReplyBody:
    return connection.call("me", wire.GetStats(), [], 20, lambda: "the test waited")[0]
