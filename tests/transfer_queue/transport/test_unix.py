"""The server's side of unix sockets: pieces, slow readers, deaths, floods, garbage, strangers."""

import contextlib
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.transfer_queue.transport.serving import Answering, serving, until
from transfer_queue import ConfigurationError, wire
from transfer_queue.connection import Connection
from transfer_queue.errors import ProtocolError
from transfer_queue.server import BURST, Server
from transfer_queue.transport import unix
from transfer_queue.transport.channel import Lost, UnixChannel, unix_socket
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.framing import Decoder, Frame, framed
from transfer_queue.transport.unix import TURN, UnixListener, is_ours, uid_of

LONGEST = 64 << 20
HEAD = 20
"""Bytes before the parts of a request with one value."""
Dial = Callable[[], socket.socket]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue")


@pytest.fixture
def descriptors() -> Descriptors:
    return Descriptors()


@pytest.fixture
def server(path: str, descriptors: Descriptors) -> Iterator[Server[Answering]]:
    with serving([UnixListener(path, descriptors, LONGEST)]) as running:
        yield running


@pytest.fixture
def dial(path: str) -> Iterator[Dial]:
    """Makes raw connections that end with the test."""
    made = []

    def connect() -> socket.socket:
        made.append(unix_socket(path, time.monotonic() + 10))
        made[-1].settimeout(20)
        return made[-1]

    yield connect
    for each in made:
        each.close()


def request(sequence: int, client: str = "me", *values: bytes) -> bytes:
    header = wire.encode(wire.Request(sequence, client, wire.GetStats()))
    return b"".join(bytes(buffer) for buffer in framed([header, *values]))


def replies(peer: socket.socket, count: int) -> list[int]:
    """Sequence numbers of the next replies."""
    decoder, found = Decoder(), list[int]()
    while len(found) < count:
        data = peer.recv(1 << 16)
        assert data, "the server hung up"
        decoder.feed(data)
        while (parts := decoder.take()) is not None:
            found.append(wire.decode_reply(parts[0]).sequence)
    return found


def last_word(peer: socket.socket) -> wire.Failure:
    """What the server said before it hung up."""
    channel = UnixChannel(peer, LONGEST)
    peer.setblocking(False)
    (header,) = channel.receive(time.monotonic() + 20)
    with pytest.raises(Lost):
        channel.receive(time.monotonic() + 20)
    body = wire.decode_reply(header).body
    assert isinstance(body, wire.Failure)
    return body


def test_requests_in_pieces_and_many_at_once_are_answered_in_order(server: Server[Answering], dial: Dial) -> None:
    peer = dial()
    for byte in request(1):
        peer.sendall(bytes([byte]))
    assert replies(peer, 1) == [1]
    peer.sendall(b"".join(request(sequence) for sequence in range(2, 1002)))

    assert replies(peer, 1000) == list(range(2, 1002))


def test_large_values_go_both_ways_whole(server: Server[Answering], path: str) -> None:
    values: list[Frame] = [os.urandom(5_000_000), b"", os.urandom(100), bytearray(os.urandom(70_000))]
    connection = Connection({"endpoint": f"unix://{path}"})
    try:
        _, received = connection.call("me", wire.GetStats(), values, 30, lambda: "waiting")
    finally:
        connection.close()

    assert received == values


def test_a_slow_reader_keeps_nobody_waiting_and_gets_everything(server: Server[Answering], dial: Dial) -> None:
    slow, quick = dial(), dial()
    value = os.urandom(2_000_000)
    slow.sendall(request(1, "me", value) + request(2))
    quick.sendall(request(7))
    assert replies(quick, 1) == [7]
    decoder, found = Decoder(), list[list[Frame]]()
    while len(found) < 2:
        decoder.feed(slow.recv(10_000))
        while (parts := decoder.take()) is not None:
            found.append(parts[1:])

    assert found == [[value], []]


def test_who_never_reads_is_cut_off_beyond_a_bound(
    server: Server[Answering], dial: Dial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unix, "UNREAD", 1_000_000)
    deaf, other = dial(), dial()
    with pytest.raises(OSError):
        for sequence in range(1, 50):
            deaf.sendall(request(sequence, "me", bytes(200_000)))
    other.sendall(request(1))

    assert replies(other, 1) == [1]
    assert [link.alive() for link in server.receiver.over] == [False]
    assert "unread" in caplog.text


def test_a_peer_that_hangs_up_is_gone_at_once_after_its_last_message(server: Server[Answering], dial: Dial) -> None:
    peer = dial()
    peer.sendall(request(1, "silent") + request(2, "silent"))
    peer.close()
    until(lambda: bool(server.receiver.over))

    assert [each.sequence for each in server.receiver.requests] == [1, 2]
    assert server.receiver.over == server.receiver.links
    assert not server.receiver.links[0].send([b"late"])


def test_a_peer_that_vanishes_in_the_middle_of_a_message_leaves_nothing(
    server: Server[Answering], dial: Dial, descriptors: Descriptors
) -> None:
    for cut in (1, 3, 10, 40, 100_000):
        peer = dial()
        peer.sendall(request(1, "me", bytes(200_000))[:cut])
        peer.close()
    other = dial()
    other.sendall(request(9))

    assert replies(other, 1) == [9]
    until(lambda: descriptors.used == 1)
    assert [each.sequence for each in server.receiver.requests] == [9]
    assert len(server.receiver.over) == 5


def test_300_clients_come_and_go(server: Server[Answering], dial: Dial, descriptors: Descriptors) -> None:
    for _ in range(2):
        peers = [dial() for _ in range(300)]
        for number, peer in enumerate(peers):
            peer.sendall(request(number + 1))
        assert [replies(peer, 1) for peer in peers] == [[number + 1] for number in range(300)]
        assert descriptors.used == 300
        for peer in peers:
            peer.close()
        until(lambda: descriptors.used == 0)

    assert len(server.receiver.over) == 600
    assert len({link.key for link in server.receiver.links}) == 600


def test_a_flood_leaves_the_others_their_turn(path: str, dial: Dial) -> None:
    listener = UnixListener(path, Descriptors())
    flood, other = dial(), dial()
    flood.sendall(b"".join(request(sequence) for sequence in range(1, 1001)))
    other.sendall(request(1))
    with serving([listener]) as server:
        assert replies(other, 1) == [1]
        assert len(replies(flood, 1000)) == 1000
        burst = next(keys for keys in server.receiver.bursts if keys.count(2))

    assert burst.count(1) <= TURN
    assert max(map(len, server.receiver.bursts)) <= TURN + 1


def test_a_burst_is_settled_before_all_the_world_has_spoken(path: str, dial: Dial) -> None:
    listener = UnixListener(path, Descriptors())
    peers = [dial() for _ in range(2 * BURST // TURN)]
    for peer in peers:
        peer.sendall(b"".join(request(sequence) for sequence in range(1, TURN + 1)))
    with serving([listener]) as server:
        for peer in peers:
            assert replies(peer, TURN) == list(range(1, TURN + 1))

    assert max(map(len, server.receiver.bursts)) <= BURST


def test_a_bad_frame_costs_its_sender_the_connection_after_one_sentence(server: Server[Answering], dial: Dial) -> None:
    bystander = dial()
    head = framed([b"x"])[0][:4]
    for bad, named in (
        (b"GET / HTTP/1.1\r\n\r\n", "no message of a transfer queue"),
        (b"TQ\x07\x01", "version 7"),
        (b"TQ\x01\x00" + request(1), "without parts"),
        (bytes(head) + (1 << 40).to_bytes(8, "little"), "header has"),
        (b"TQ\x01\x02" + (1).to_bytes(8, "little") + (1 << 40).to_bytes(8, "little"), "ask for fewer rows"),
    ):
        peer = dial()
        peer.sendall(bad)
        failure = last_word(peer)
        assert (failure.name, named in failure.message) == (ProtocolError.__name__, True)
    bystander.sendall(request(1))

    assert replies(bystander, 1) == [1]


def test_a_receiver_that_raises_costs_only_that_connection(
    server: Server[Answering], dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    peer, other = dial(), dial()
    peer.sendall(request(1, "failing"))
    assert peer.recv(100) == b""
    other.sendall(request(2))

    assert replies(other, 1) == [2]
    assert "must not do this" in caplog.text


def test_a_reply_beyond_the_limit_is_an_error_of_who_sends_it(server: Server[Answering], dial: Dial) -> None:
    dial().sendall(request(1))
    until(lambda: bool(server.receiver.links))
    link = server.receiver.links[0]
    with pytest.raises(ProtocolError, match="ask for fewer rows"):
        server.submit(lambda: link.send([bytes(10), bytes(LONGEST)])).result(20)

    assert server.submit(link.alive).result(20)


def test_50000_mutated_messages_harm_nobody(server: Server[Answering], dial: Dial, path: str) -> None:
    draw = random.Random(7)
    valid = [request(n, "me", b"v" * (n % 90)) for n in range(1, 60)]
    served: list[int] = []
    ended = threading.Event()

    def good() -> None:
        connection = Connection({"endpoint": f"unix://{path}"})
        while not ended.is_set():
            _, values = connection.call("good", wire.GetStats(), [b"value"], 20, lambda: "waiting")
            served.append(len(values))
        connection.close()

    thread = threading.Thread(target=good)
    thread.start()
    try:
        for _ in range(500):
            peer = dial()
            with contextlib.suppress(OSError):  # it may be cut off, as it should be
                peer.sendall(b"".join(mutated(draw, draw.choice(valid)) for _ in range(100)))
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
            peer.close()
    finally:
        ended.set()
        thread.join(20)

    assert set(served) == {1}
    fuzzed = [each for each in server.receiver.requests if each.client != "good"]
    assert len(served) > 100
    assert len(fuzzed) > 20_000  # what was read as a request in spite of all; the rest was echoed, or cost a connection
    until(lambda: len(server.receiver.over) == 501)


def mutated(draw: random.Random, message: bytes) -> bytes:
    """Most keep the envelope whole, so that the messages behind them are read too."""
    changed = bytearray(message)
    if draw.random() < 0.002:
        return bytes(changed[: draw.randrange(len(changed))])
    place = draw.randrange(len(changed)) if draw.random() < 0.002 else draw.randrange(HEAD, len(changed))
    changed[place] = draw.randrange(256)
    return bytes(changed)


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(path: str, dial: Dial) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    with serving([UnixListener(path, Descriptors())]):
        with pytest.raises(ConfigurationError, match="another controller listens"):
            UnixListener(path, Descriptors())
        peer = dial()
        peer.sendall(request(1))

        assert replies(peer, 1) == [1]
    with serving([UnixListener(path, Descriptors())]):
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("mine")
    with pytest.raises(ConfigurationError, match="in the way"):
        UnixListener(str(tmp_path / "queue"), Descriptors())
    with pytest.raises(ConfigurationError, match="no socket can be made"):
        UnixListener(str(tmp_path / "missing" / "queue"), Descriptors())

    assert (tmp_path / "queue").read_text() == "mine"


def test_only_this_user_and_root_may_speak() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert uid_of(left) in (os.getuid(), None)

    assert is_ours(os.getuid())
    assert is_ours(0)
    assert is_ours(None)
    assert not is_ours(os.getuid() + 1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_turned_away(server: Server[Answering], path: str) -> None:
    folder = Path(path).parent
    for each in (folder, *folder.parents):
        if each == Path(tempfile.gettempdir()):
            break
        os.chmod(each, 0o755)
    os.chmod(path, 0o777)
    child = os.fork()
    if child == 0:
        answer = b"?"
        try:
            os.setuid(65534)
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            peer.settimeout(20)
            answer = peer.recv(100)
        finally:
            os._exit(0 if answer == b"" else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
