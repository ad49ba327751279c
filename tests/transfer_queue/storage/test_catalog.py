"""Where values lie, against a plain dictionary: put, withdrawn, freed and asked for in any order, here or placed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_queue import wire
from transfer_queue.columns import decode_fields, encode_fields
from transfer_queue.errors import FieldError
from transfer_queue.ledger import Freed
from transfer_queue.ledger.shape import first_index, split_index
from transfer_queue.storage.catalog import Catalog
from transfer_queue.storage.chunk import split
from transfer_queue.storage.image import CatalogImage, SegmentImage, catalog_of, image_of
from transfer_queue.storage.segments import Segments

ROWS = 4
INDEXES = [first_index(serial) + row for serial in range(3) for row in range(ROWS)]
SIZE = 1 << 20


class Memory:
    """Segment 0 as bytes, and where the next values go."""

    def __init__(self, catalog: Catalog) -> None:
        self.bytes, self.end = bytearray(SIZE), 0
        catalog.segments.attach("there", SIZE, owner=1)

    def place(self, frame: bytes) -> wire.Extent:
        start, self.end = self.end, self.end + len(frame)
        self.bytes[start : self.end] = frame
        return 0, start


def put(catalog: Catalog, memory: Memory, values: dict[int, Any], placed: bool) -> None:
    rows, columns, frames = encode_fields({"x": [np.asarray(value) for value in values.values()]})
    raw = [bytes(frame) for frame in frames]
    extents = [memory.place(raw[0])] if placed else []
    catalog.write(list(values), split(wire.Put(rows, columns, extents=extents), [] if placed else raw))


def read(catalog: Catalog, memory: Memory, indexes: list[int]) -> list[list[int]]:
    column, here, places = catalog.read("x", indexes)
    if places is not None:
        parts = []
        for segment, offset, size in np.frombuffer(places, np.int64).reshape(-1, 3).tolist():
            parts.append((here if segment < 0 else memory.bytes)[offset : offset + size])
        here = b"".join(parts)
    values = decode_fields(len(indexes), [column], [here])["x"]
    return [row.tolist() for row in (values.unbind() if hasattr(values, "unbind") else values)]


@settings(deadline=None)  # the first example imports torch
@given(st.data())
def test_what_comes_out_is_what_went_in_and_was_not_withdrawn(data: st.DataObject) -> None:
    catalog, model = Catalog(), {}
    memory, in_memory = Memory(catalog), set()
    for _ in range(data.draw(st.integers(1, 10))):
        absent = [index for index in INDEXES if index not in model]
        act = data.draw(st.sampled_from(["put", "read", "free", "restart"]))
        if act == "put" and absent:
            chosen = data.draw(st.lists(st.sampled_from(absent), min_size=1, unique=True))
            values = {index: [index % 1000] * data.draw(st.integers(1, 2)) for index in chosen}
            placed = data.draw(st.booleans())
            put(catalog, memory, values, placed)
            model |= values
            in_memory |= set(chosen) if placed else set()
        elif act == "read" and model:
            chosen = data.draw(st.lists(st.sampled_from(sorted(model)), min_size=1, unique=True))
            assert read(catalog, memory, chosen) == [model[index] for index in chosen]
        elif act == "free":
            serial = data.draw(st.integers(0, 2))
            rows = data.draw(st.one_of(st.none(), st.sets(st.integers(0, ROWS - 1), min_size=1)))
            field = data.draw(st.sampled_from([None, "x"]))
            catalog.free(Freed(serial) if rows is None else Freed(serial, field, tuple(rows)))
            for row in range(ROWS) if rows is None else rows:
                model.pop(first_index(serial) + row, None)
                in_memory.discard(first_index(serial) + row)
        elif act == "restart":
            written = wire.encode(image_of(catalog))
            catalog = catalog_of(decoded(written))
        assert catalog.stored_bytes == sum(8 * len(value) for value in model.values())
        assert catalog.segments.known[0].live == sum(8 * len(model[index]) for index in in_memory)
        assert free_and_live(catalog) == memory.end


def decoded(written: bytes) -> CatalogImage:
    import msgspec

    return msgspec.msgpack.decode(written, type=CatalogImage)


def free_and_live(catalog: Catalog) -> int:
    """Bytes of the segment that hold a row or are free again: each of those that were ever written, once."""
    segment = catalog.segments.known[0]
    return segment.live + sum(size for _, size in segment.free)


def test_a_row_without_the_field_is_named() -> None:
    catalog = Catalog()
    put(catalog, Memory(catalog), {0: [1], 1: [2]}, placed=False)

    with pytest.raises(FieldError, match="row 2 has no field 'x'"):
        catalog.read("x", [0, 2])


def test_rows_of_a_batch_give_back_their_bytes_one_by_one() -> None:
    catalog = Catalog()
    memory = Memory(catalog)
    put(catalog, memory, {0: [1], 1: [2], 2: [3]}, placed=True)
    catalog.free(Freed(0, None, (1,)))

    assert catalog.segments.reusable([0]) == [(0, 8, 8)]
    catalog.segments.give([(0, 8, 8)])
    catalog.free(Freed(0))
    assert catalog.segments.reusable([0]) == [(0, 0, 8), (0, 16, 8)]


def test_bytes_are_not_handed_out_while_somebody_copies_them() -> None:
    catalog = Catalog()
    put(catalog, Memory(catalog), {0: [1], 1: [2]}, placed=True)
    first = catalog.segments.begin_read("a", 7)
    catalog.free(Freed(0, None, (0,)))
    second = catalog.segments.begin_read("b", 8)
    catalog.free(Freed(0, None, (1,)))

    assert catalog.segments.reusable([0]) == []
    catalog.segments.end_read(first + 1)  # a token that is none of ours
    assert catalog.segments.reusable([0]) == []
    catalog.segments.end_read(first)
    assert catalog.segments.reusable([0]) == [(0, 0, 8)]
    catalog.segments.end_reads_of("b")
    assert catalog.segments.reusable([0]) == [(0, 0, 16)]
    catalog.segments.end_read(second)


def test_values_that_lie_nowhere_are_refused() -> None:
    catalog = Catalog()
    Memory(catalog)
    column = wire.Column("x", "int64", [()])
    for extent, says in (((5, 0), "segment 5 is not attached"), ((0, SIZE - 4), "reach past")):
        with pytest.raises(FieldError, match=says):
            catalog.check(split(wire.Put(1, [column], extents=[extent]), []))


def test_a_global_index_says_serial_and_row() -> None:
    assert split_index(first_index(3) + 2) == (3, 2)


def test_an_empty_value_is_no_room_to_write_again() -> None:
    """It would be offered for ever, and whoever waits for room would wake for nothing again and again."""
    segments = Segments()
    number = segments.attach("there", 64, owner=1)
    segments.free([(number, 8, 0)])

    assert segments.reusable([number]) == []


def test_what_a_reader_holds_back_is_counted_and_the_reader_named() -> None:
    catalog = Catalog()
    put(catalog, Memory(catalog), {0: [1], 1: [2]}, placed=True)
    assert (catalog.segments.held_bytes, catalog.segments.holder()) == (0, None)
    token = catalog.segments.begin_read("a", 7, "trainer", since=12.0)
    catalog.segments.begin_read("b", 8, "other", since=13.0)
    assert catalog.segments.holder() is None
    catalog.free(Freed(0, None, (0,)))
    holder = catalog.segments.holder()
    assert (catalog.segments.held_bytes, holder and (holder.name, holder.since)) == (8, ("trainer", 12.0))
    catalog.segments.end_read(token)
    holder = catalog.segments.holder()
    assert (catalog.segments.held_bytes, holder and holder.name) == (8, "other")
    catalog.segments.end_reads_of("b")

    assert (catalog.segments.held_bytes, catalog.segments.holder()) == (0, None)


def test_a_segment_that_was_saved_without_its_client_is_anybodys() -> None:
    saved = wire.encode(CatalogImage({}, {}, [SegmentImage(3, "there", 64, 1, False, [(8, 8)], "a")], 4))
    client = wire.encode("a")
    assert saved.count(client) == 1
    shorter = saved.replace(b"\x97\x03", b"\x96\x03").replace(client, b"")
    segments = catalog_of(decoded(shorter)).segments

    segments.check_client([3], "b")
    with pytest.raises(FieldError, match="8 bytes at 12 of segment 3 are not the producer's"):
        segments.check([(3, 12, 8)])
    segments.give([(3, 8, 8)])
    segments.check([(3, 12, 8)])
