"""Messages survive any cutting of the stream; what is no message is refused; announcements cost nothing."""

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_queue.errors import ProtocolError
from transfer_queue.transport import framing
from transfer_queue.transport.framing import CREDIT, DIRECT, GRAIN, JOINED, Decoder, Frame, framed

PARTS = st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 3 * DIRECT).map(bytes)), min_size=1, max_size=6)


def stream(messages: list[list[bytes]]) -> bytes:
    return b"".join(bytes(buffer) for message in messages for buffer in framed(message))


def received(decoder: Decoder, data: bytes, cuts: list[int], *, in_place: bool) -> list[list[Frame]]:
    """What the decoder makes of the data in such pieces; `in_place`: as a socket would be read."""
    messages, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        turn += 1
        room = decoder.room() if in_place else None
        if room is None:
            decoder.feed(data[at : at + size])
            at += size
        else:
            with room:
                size = min(size, room.nbytes, len(data) - at)
                room[:size] = data[at : at + size]
            decoder.filled(size)
            at += size
        while (message := decoder.take()) is not None:
            messages.append(message)
    return messages


@given(st.lists(PARTS, min_size=1, max_size=4), st.lists(st.integers(1, 2 * DIRECT), min_size=1), st.booleans())
def test_messages_arrive_as_they_were_sent_however_the_stream_is_cut(
    messages: list[list[bytes]], cuts: list[int], in_place: bool
) -> None:
    decoder = Decoder()

    assert received(decoder, stream(messages), [*cuts, DIRECT], in_place=in_place) == messages
    assert decoder.take() is None


@given(st.lists(PARTS.filter(lambda parts: sum(map(len, parts)) < 500), min_size=1, max_size=3))
def test_a_stream_may_come_byte_by_byte(messages: list[list[bytes]]) -> None:
    assert received(Decoder(), stream(messages), [1], in_place=False) == messages


def test_small_parts_arrive_as_bytes_and_large_ones_uncopied() -> None:
    small, large = bytes(DIRECT - 1), bytes(2 * GRAIN + 1)
    (message,) = received(Decoder(), stream([[small, large]]), [50_000], in_place=True)

    assert [type(part) for part in message] == [bytes, bytearray]


@given(st.binary(max_size=3 * DIRECT), st.lists(st.integers(1, 5000), min_size=1))
def test_any_bytes_are_messages_or_a_protocol_error(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(ProtocolError):
        received(Decoder(), data, cuts, in_place=True)


@given(PARTS, st.data())
def test_a_changed_head_is_refused_or_changes_only_sizes(parts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(stream([parts]))
    place = data.draw(st.integers(0, 3 + 8 * len(parts)))
    whole[place] ^= data.draw(st.integers(1, 255))
    if place < 3:
        with pytest.raises(ProtocolError):
            received(Decoder(), bytes(whole), [100], in_place=True)
        return
    try:
        messages = received(Decoder(), bytes(whole), [100], in_place=True)
    except ProtocolError:
        return
    assert messages != [parts]


@pytest.mark.parametrize(
    ("parts", "longest", "named"),
    [
        ([], 10, "without parts"),
        ([b""] * 256, 10, "256 parts; at most 255"),
        ([b"12345", b"123456"], 10, "11 bytes; at most 10"),
        ([bytes(framing.LONGEST_HEADER + 1)], 1 << 30, "header has 16777217 bytes; at most 16777216"),
    ],
)
def test_the_limits_hold_on_both_sides(parts: list[bytes], longest: int, named: str) -> None:
    with pytest.raises(ProtocolError, match=named):
        framed(parts, longest)
    if 0 < len(parts) <= framing.MOST_PARTS:
        with pytest.raises(ProtocolError, match=named):
            received(Decoder(longest), stream([parts]), [10_000_000], in_place=True)


def test_a_message_without_parts_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(b"TQ\x01\x00")
    with pytest.raises(ProtocolError, match="without parts"):
        decoder.take()


def test_another_version_is_told_apart_from_garbage() -> None:
    for data, named in (
        (b"TQ\x02\x01", "version 2; this side speaks version 1"),
        (b"GET / HT", "b'GET '"),
        (b"x", "b'x'"),
    ):
        decoder = Decoder()
        decoder.feed(data)
        with pytest.raises(ProtocolError, match=named):
            decoder.take()


def test_limits_are_inclusive() -> None:
    parts = [bytes(4), bytes(6)]

    assert received(Decoder(10), stream([parts]), [3], in_place=True) == [parts]


def test_what_is_announced_costs_nothing_until_it_comes() -> None:
    head = b"".join(bytes(buffer) for buffer in framed([b"x", b"y"]))[:4] + (1).to_bytes(8, "little")
    announced = head + (framing.LONGEST_MESSAGE - 1).to_bytes(8, "little") + b"x"
    tracemalloc.start()
    try:
        decoder = Decoder()
        decoder.feed(announced)
        assert decoder.take() is None
        nothing_came = tracemalloc.get_traced_memory()[1]
        for _ in range(10):
            decoder.feed(bytes(100_000))
            assert decoder.take() is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert nothing_came < GRAIN + 100_000
    assert peak < 2 * (GRAIN + CREDIT * 1_000_000)


@given(PARTS)
def test_small_messages_are_one_buffer_and_large_ones_are_not_copied(parts: list[bytes]) -> None:
    buffers = framed(parts)
    total = sum(map(len, parts))

    assert (len(buffers) == 1) == (total <= JOINED)
    if total > JOINED:
        assert all(buffer is part for buffer, part in zip(buffers[1:], filter(None, parts), strict=True))


def test_views_of_numbers_are_sent_by_their_bytes() -> None:
    numbers = memoryview(bytearray(range(64))).cast("Q")

    assert received(Decoder(), stream([[b"h", numbers]]), [5], in_place=True) == [[b"h", bytes(range(64))]]  # type: ignore[list-item]
