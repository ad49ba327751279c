"""TCP with CURVE: who has the run's keys is served, nobody else is heard; deaths, limits and forks as on unix."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest
import zmq

from tests.transfer_queue.test_connection import Asynchronous, Blocking, Make, ask
from tests.transfer_queue.transport.processes import controller
from tests.transfer_queue.transport.serving import Answering, serving, until
from transfer_queue import ConfigurationError, ControllerLostError, ControllerTimeoutError, wire
from transfer_queue.connection import Connection
from transfer_queue.errors import ProtocolError
from transfer_queue.server import Server
from transfer_queue.transport import tcp
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.framing import MOST_PARTS
from transfer_queue.transport.keys import Keys
from transfer_queue.transport.tcp import TcpListener

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@pytest.fixture
def descriptors() -> Descriptors:
    return Descriptors()


@pytest.fixture
def listener(keys: Keys, descriptors: Descriptors) -> Iterator[TcpListener]:
    with closing(TcpListener(ANY_PORT, keys, descriptors, 64 << 20)) as listening:
        yield listening


@pytest.fixture
def server(listener: TcpListener) -> Iterator[Server[Answering]]:
    with serving([listener]) as running:
        yield running


@pytest.fixture
def info(listener: TcpListener, keys: Keys) -> dict[str, Any]:
    return {"endpoint": listener.endpoint, **keys.for_clients()}


@pytest.fixture(params=[Blocking, Asynchronous])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda info: stack.enter_context(closing(request.param(info)))


@pytest.fixture
def raw(info: dict[str, Any]) -> Iterator[Callable[[], "zmq.Socket[bytes]"]]:
    """Sockets with the right keys and no manners."""
    made: list[zmq.Socket[bytes]] = []

    def begin() -> "zmq.Socket[bytes]":
        made.append(zmq.Context.instance().socket(zmq.DEALER))
        made[-1].setsockopt(zmq.CURVE_SERVERKEY, info["server_key"].encode())
        made[-1].setsockopt(zmq.CURVE_PUBLICKEY, info["client_key"].encode())
        made[-1].setsockopt(zmq.CURVE_SECRETKEY, info["client_secret"].encode())
        made[-1].setsockopt(zmq.RCVTIMEO, 20_000)
        made[-1].connect(info["endpoint"])
        return made[-1]

    yield begin
    for each in made:
        each.close(linger=0)


def header(sequence: int = 1, client: str = "me") -> bytes:
    return wire.encode(wire.Request(sequence, client, wire.GetStats()))


def test_requests_and_values_go_both_ways(server: Server[Answering], info: dict[str, Any], make: Make) -> None:
    first, second = make(info), make(info)
    values = [b"one", b"", os.urandom(3_000_000)]

    assert first.call(values=values) == (wire.Done(), values)
    assert second.call() == first.call() == (wire.Done(), [])
    assert [each.sequence for each in server.receiver.requests] == [1, 1, 2]
    assert len(server.receiver.links) == 2
    with pytest.raises(ConfigurationError, match="surrogates"):
        first.call("\ud800")
    with pytest.raises(ProtocolError, match=f"at most {MOST_PARTS}"):
        first.call(values=[b""] * MOST_PARTS)


def test_a_peer_that_hangs_up_is_gone_at_once(
    server: Server[Answering], info: dict[str, Any], make: Make, descriptors: Descriptors
) -> None:
    client = make(info)
    client.call()
    client.close()
    until(lambda: server.receiver.over == server.receiver.links != [])

    assert not server.submit(lambda: server.receiver.links[0].send([b"late"])).result(20)
    assert descriptors.used == 0


def test_a_reply_that_does_not_come_is_a_timeout(server: Server[Answering], info: dict[str, Any], make: Make) -> None:
    client = make(info)
    with pytest.raises(ControllerTimeoutError, match=r"did not answer for .* while the test waited"):
        client.call("silent", timeout_s=0.5)

    assert client.call(values=[b"x"])[1] == [b"x"]


def test_nobody_listens(info: dict[str, Any], make: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ControllerLostError, match="nobody listens at tcp://"):
        make({**info, "endpoint": endpoint}).call()
    with pytest.raises(ConfigurationError, match="no address that a client can connect to"):
        make({**info, "endpoint": "tcp://nowhere"}).call()


def test_a_controller_that_dies_is_told_and_a_durable_one_is_asked_again(keys: Keys, make: Make) -> None:
    secrets = (keys.server_public, keys.server_secret, keys.client_public, keys.client_secret)
    outcome: list[Any] = []
    with controller(ANY_PORT, "", *secrets) as (process, endpoint):
        info = {"endpoint": endpoint, **keys.for_clients()}
        lost, kept = make(info), make({**info, "durable": True})
        lost.call()
        waiting = threading.Thread(target=lambda: outcome.append(kept.call("me", [b"kept"], 60)))
        kept.call()
        process.kill()
        process.wait(20)
        waiting.start()
        with pytest.raises(ControllerLostError, match=r"went away while the test waited|nobody listens"):
            lost.call("silent")
    with controller(endpoint, "", *secrets):
        waiting.join(30)

    assert outcome == [(wire.Done(), [b"kept"])]


def stranger(endpoint: str, server_key: str | None, public: str, secret: str) -> "zmq.Socket[bytes]":
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    if server_key is not None:
        made.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        made.setsockopt(zmq.CURVE_PUBLICKEY, public.encode())
        made.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
    made.connect(endpoint)
    return made


def test_strangers_get_no_reply_and_harm_nobody(
    server: Server[Answering], info: dict[str, Any], keys: Keys, make: Make
) -> None:
    other = Keys.make()
    client = make(info)
    client.call()
    strangers = [
        stranger(info["endpoint"], None, "", ""),
        stranger(info["endpoint"], other.server_public, keys.client_public, keys.client_secret),
        stranger(info["endpoint"], keys.server_public, other.client_public, other.client_secret),
    ]
    try:
        for each in strangers:
            each.send_multipart([header(), b"value"])
        for _ in range(20):
            client.call()
        assert [each.poll(200) for each in strangers] == [0, 0, 0]
    finally:
        for each in strangers:
            each.close()

    assert len(server.receiver.links) == 1
    assert client.call(values=[b"x"])[1] == [b"x"]


def test_keys_of_another_run_are_an_error_that_shows_none_of_them(
    server: Server[Answering], info: dict[str, Any], make: Make
) -> None:
    other = Keys.make()
    wrong_client = {**info, "client_key": other.client_public, "client_secret": other.client_secret}
    with pytest.raises(ConfigurationError, match=r"does not know the key.*get_info\(\)") as refused:
        make(wrong_client).call()
    with pytest.raises(ControllerLostError, match="nobody listens") as lost:
        make({**info, "server_key": other.server_public}).call()

    for secret in (*wrong_client.values(), *info.values()):
        if not str(secret).startswith("tcp://"):
            assert secret not in f"{refused.value}{lost.value}"


def test_garbage_on_the_port_harms_nobody(
    server: Server[Answering], info: dict[str, Any], make: Make, descriptors: Descriptors
) -> None:
    client = make(info)
    host, port = info["endpoint"].removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03"
    for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(5000), os.urandom(50_000), greeting + b"x" * 99):
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(garbage)
            assert client.call(values=[b"x"])[1] == [b"x"]
    until(lambda: descriptors.used == 1)

    assert len(server.receiver.links) == 1


def test_a_message_beyond_the_limits_is_refused_and_the_connection_unheard(
    server: Server[Answering], raw: Callable[[], "zmq.Socket[bytes]"]
) -> None:
    peer = raw()
    peer.send_multipart([b"x"] * (MOST_PARTS + 1))
    failure = wire.decode_reply(peer.recv_multipart()[0]).body
    assert isinstance(failure, wire.Failure)
    assert (failure.name, "256 parts" in failure.message) == (ProtocolError.__name__, True)
    until(lambda: len(server.receiver.over) == 1)
    peer.send_multipart([header()])
    other = raw()
    other.send_multipart([header(5)])

    assert wire.decode_reply(other.recv_multipart()[0]).sequence == 5
    assert peer.poll(100) == 0


def test_a_flood_leaves_the_others_their_turn(
    server: Server[Answering], raw: Callable[[], "zmq.Socket[bytes]"], info: dict[str, Any]
) -> None:
    flood = raw()
    for sequence in range(1, 3001):
        flood.send_multipart([header(sequence)])
    with closing(Connection(info)) as other:
        assert ask(other) == wire.Done()
    got = [wire.decode_reply(flood.recv_multipart()[0]).sequence for _ in range(3000)]

    assert got == list(range(1, 3001))


def test_who_leaves_too_much_unread_is_given_up(
    raw: Callable[[], "zmq.Socket[bytes]"], keys: Keys, info: dict[str, Any], server: Server[Answering]
) -> None:
    deaf = raw()
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.send_multipart([header()])
    until(lambda: bool(server.receiver.links))
    link = server.receiver.links[0]

    def flood() -> list[bool]:
        return [link.send([bytes(100_000)]) for _ in range(4 * tcp.UNREAD)]

    assert not all(server.submit(flood).result(60))
    until(lambda: server.receiver.over == [link])
    with closing(Connection(info)) as other:
        assert ask(other) == wire.Done()


def test_beyond_the_file_limit_newcomers_get_a_sentence_and_then_nothing(keys: Keys) -> None:
    secrets = (keys.server_public, keys.server_secret, keys.client_public, keys.client_secret)
    with controller(ANY_PORT, "80", *secrets) as (process, endpoint), ExitStack() as stack:
        info = {"endpoint": endpoint, **keys.for_clients()}
        outcomes: list[str] = []
        served: list[Connection] = []
        for _ in range(100):
            newcomer = stack.enter_context(closing(Connection(info)))
            try:
                reply = ask(newcomer)
            except ControllerLostError:
                outcomes.append("nobody listens")
                continue
            outcomes.append(getattr(reply, "message", "served"))
            if reply == wire.Done():
                served.append(newcomer)
        assert process.poll() is None
        assert 10 < len(served) < 80
        assert any("limit of open files is 80 (ulimit -n)" in each for each in outcomes)
        assert [ask(each) for each in served] == [wire.Done()] * len(served)
        silent = stack.enter_context(held(endpoint, 200))
        assert [ask(each) for each in served] == [wire.Done()] * len(served)
        assert process.poll() is None
        silent.close()
        for each in served[:5]:
            each.close()
        until(lambda: reachable(info))


def test_a_newcomer_that_is_too_many_even_for_a_sentence_is_hung_up_on(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_MS", 600_000)
    descriptors = Descriptors()
    listener = TcpListener(ANY_PORT, keys, descriptors)
    descriptors.most, descriptors.reserve = 1, 4
    with (
        serving([listener]) as server,
        closing(Connection({"endpoint": listener.endpoint, **keys.for_clients()})) as ours,
    ):
        assert ask(ours) == wire.Done()
        with held(listener.endpoint, 3) as silent:
            assert silent.ended(20) == 1
            assert ask(ours) == wire.Done()

    assert len(server.receiver.links) == 1


def test_a_message_that_comes_while_another_is_sent_is_not_overlooked(
    server: Server[Answering], raw: Callable[[], "zmq.Socket[bytes]"]
) -> None:
    first, second = raw(), raw()
    for peer in (first, second):
        peer.send_multipart([header()])
        peer.recv_multipart()
    link, sending = server.receiver.links[0], threading.Event()

    def send() -> bool:
        sending.set()
        time.sleep(0.2)  # until what the second says has come; ZeroMQ notices it while it sends, and wakes nobody
        return link.send([b"to the first"])

    sent = server.submit(send)
    sending.wait(20)
    second.send_multipart([header(2)])

    assert sent.result(20)
    assert wire.decode_reply(second.recv_multipart()[0]).sequence == 2


def test_many_clients_at_once_never_miss_a_reply(server: Server[Answering], info: dict[str, Any]) -> None:
    def work() -> None:
        with closing(Connection(info)) as connection:
            for _ in range(300):
                done.append(ask(connection) == wire.Done())

    done: list[bool] = []
    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)

    assert done == [True] * 6 * 300


class held(ExitStack):
    """So many plain TCP connections that say nothing, or as many as there is room for."""

    def __init__(self, endpoint: str, count: int) -> None:
        super().__init__()
        host, port = endpoint.removeprefix("tcp://").split(":")
        self.sockets: list[socket.socket] = []
        for _ in range(count):
            try:
                self.sockets.append(self.enter_context(socket.create_connection((host, int(port)), timeout=20)))
            except OSError:
                return

    def ended(self, within_s: float) -> int:
        """How many of them the other side has closed when at least one is."""
        over: set[socket.socket] = set()
        deadline = time.monotonic() + within_s
        while not over and time.monotonic() < deadline:
            for each in select.select(self.sockets, [], [], 0.1)[0]:
                try:
                    if not each.recv(1000):
                        over.add(each)
                except OSError:
                    over.add(each)
        return len(over)


def reachable(info: dict[str, Any]) -> bool:
    with closing(Connection(info)) as connection:
        try:
            return ask(connection) == wire.Done()
        except (ControllerLostError, ControllerTimeoutError):
            return False


def test_a_forked_child_leaves_the_parents_connection_alone(server: Server[Answering], info: dict[str, Any]) -> None:
    connection = Connection(info)
    ask(connection)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connection.close()
            code = 0 if ask(connection) == wire.Done() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(connection) == wire.Done()
    connection.close()
    sessions: Sequence[int] = [each.session for each in server.receiver.requests]

    assert sessions[0] == sessions[2] != sessions[1]


def test_an_address_that_is_taken_is_an_error(listener: TcpListener, server: Server[Answering], keys: Keys) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing can listen at tcp://127\.0\.0\.1:"):
        TcpListener(listener.endpoint, keys, Descriptors())
