"""Values by partition and field, against a plain dictionary: put, withdrawn, freed and asked for in any order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_queue.columns import decode_fields, encode_fields
from transfer_queue.errors import FieldError
from transfer_queue.ledger.ledger import Freed
from transfer_queue.ledger.shape import first_index
from transfer_queue.storage.memory import MemoryStorage

CAPACITY = 4
INDEXES = [first_index(serial) + row for serial in range(3) for row in range(CAPACITY)]


def put(storage: MemoryStorage, values: dict[int, Any]) -> None:
    rows, columns, frames = encode_fields({"x": [np.asarray(value) for value in values.values()]})
    storage.write(list(values), storage.split(rows, columns, [bytes(frame) for frame in frames]))


def read(storage: MemoryStorage, indexes: list[int]) -> list[list[int]]:
    column, frame = storage.read("x", indexes)
    values = decode_fields(len(indexes), [column], [frame])["x"]
    return [row.tolist() for row in (values.unbind() if hasattr(values, "unbind") else values)]


@settings(deadline=None)
@given(st.data())
def test_what_comes_out_is_what_went_in_and_was_not_withdrawn(data: st.DataObject) -> None:
    storage, model = MemoryStorage(), {}
    for _ in range(data.draw(st.integers(1, 8))):
        absent = [index for index in INDEXES if index not in model]
        if absent and data.draw(st.booleans()):
            chosen = data.draw(st.lists(st.sampled_from(absent), min_size=1, unique=True))
            values = {index: [index] * data.draw(st.integers(1, 2)) for index in chosen}
            put(storage, values)
            model |= values
        elif model and data.draw(st.booleans()):
            chosen = data.draw(st.lists(st.sampled_from(sorted(model)), min_size=1, unique=True))
            assert read(storage, chosen) == [model[index] for index in chosen]
        else:
            serial = data.draw(st.integers(0, 2))
            rows = None if data.draw(st.booleans()) else data.draw(st.sets(st.integers(0, CAPACITY - 1), min_size=1))
            field = data.draw(st.sampled_from([None, "x"]))
            storage.free(Freed(serial) if rows is None else Freed(serial, field, tuple(rows)))
            for row in range(CAPACITY) if rows is None else rows:
                model.pop(first_index(serial) + row, None)
        assert storage.stored_bytes == sum(8 * len(value) for value in model.values())


def test_a_row_without_the_field_is_named() -> None:
    storage = MemoryStorage()
    put(storage, {0: [1], 1: [2]})

    with pytest.raises(FieldError, match="row 2 has no field 'x'"):
        storage.read("x", [0, 2])
