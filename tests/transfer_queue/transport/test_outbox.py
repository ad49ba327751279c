"""What waits to be sent leaves in order, whole, and is accounted for."""

from hypothesis import given
from hypothesis import strategies as st

from transfer_queue.transport.outbox import AT_ONCE, OVERHEAD, Outbox


@given(st.lists(st.lists(st.binary(max_size=30), max_size=80), max_size=5), st.data())
def test_bytes_leave_in_order_in_any_pieces(messages: list[list[bytes]], data: st.DataObject) -> None:
    outbox, left = Outbox(), bytearray()
    for message in messages:
        whole = b"".join(message)
        already = data.draw(st.integers(0, len(whole)))
        outbox.add(message, already)
        left += whole[already:]
    sent = bytearray()
    while outbox:
        offered = b"".join(outbox.first())
        count = data.draw(st.integers(1, len(offered)))
        sent += offered[:count]
        outbox.sent(count)

    assert sent == left
    assert outbox.cost == 0


def test_tiny_buffers_are_not_free_and_are_offered_in_portions() -> None:
    outbox = Outbox()
    outbox.add([b"x"] * 1000)

    assert outbox.cost == 1000 * (1 + OVERHEAD)
    assert len(outbox.first()) == AT_ONCE


def test_shaped_memory_is_sent_by_its_bytes() -> None:
    outbox = Outbox()
    outbox.add([memoryview(bytearray(16)).cast("Q"), memoryview(b""), b"end"], 12)

    assert b"".join(outbox.first()) == bytes(4) + b"end"
