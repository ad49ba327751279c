import unicodedata

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transfer_queue.test_client import Connect, Start
from transfer_queue import ConfigurationError
from transfer_queue.peeking import HEAD_BYTES, TEXT, preview
from transfer_queue.wire import OBJECT, Glimpse


def glimpse(value: object) -> Glimpse:
    if isinstance(value, np.ndarray):
        return Glimpse(value.dtype.name, value.shape, value.nbytes, value.tobytes()[:HEAD_BYTES])
    packed = msgspec.msgpack.encode(value)
    return Glimpse(OBJECT, (), len(packed), packed[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("short", "short"),
        ("a\nb\x1b[31m\u202ec", "a\\nb\\x1b[31m\\u202ec"),
        ("x" * 81, "x" * 79 + "…"),
        ("é" * 5000, "é" * 79 + "…"),
        ({"a": [1, None]}, "{'a': [1, None]}"),
        (["y" * 600], "604 bytes"),
        (np.array([1.5, 2.0], dtype=np.float32), "float32[2] 1.5 2"),
        (np.arange(1000), "int64[1000] 0 1 2 3 4 5 6 7 …"),
        (np.array(7), "7"),
        (np.empty((0, 3)), "float64[0,3]"),
    ],
)
def test_a_preview_is_short_and_plain(value: object, shown: str) -> None:
    assert preview(glimpse(value)) == shown


@given(st.binary(max_size=600), st.integers(0, 1 << 40), st.sampled_from([OBJECT, "float16", "bfloat16", "bool"]))
def test_no_bytes_break_it_or_reach_the_terminal(head: bytes, more: int, dtype: str) -> None:
    shown = preview(Glimpse(dtype, (3,), len(head) + more, head))

    assert len(shown) <= TEXT
    assert not [character for character in shown if unicodedata.category(character)[0] == "C"]


def test_peek_shows_rows_and_takes_nothing(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=4, tasks=["train"]))
    rows = client.put({"x": ["a", "b\n"], "n": np.arange(4).reshape(2, 2)}, global_step=3, group_id=["g", "h"])
    client.put({"y": ["1"]}, metadata=type(rows)(rows.global_indexes[:1], [], [3], ["g"]))
    peeked = client.peek()

    assert (peeked.total, [row.index for row in peeked.rows]) == (2, rows.global_indexes)
    assert [row.values for row in peeked.rows] == [
        {"x": "a", "n": "int64[2] 0 1", "y": "1"},
        {"x": "b\\n", "n": "int64[2] 2 3"},
    ]
    assert [(row.step, row.group, row.tasks) for row in peeked.rows] == [
        (3, "g", {"train": "free"}),
        (3, "h", {"train": "free"}),
    ]
    assert client.peek(fields=["y"], limit=1).rows[0].values == {"y": "1"}
    assert client.peek(step=4).rows == []
    assert client.get_meta(["x"], 2, 3, "train").global_indexes == rows.global_indexes
    with pytest.raises(ConfigurationError, match="limit=0 is out of range: 1 to 1000"):
        client.peek(limit=0)


def test_many_large_values_make_no_large_answer(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=1000, storage="memory"))
    values = {f"f{i}": np.ones((1000, 200)) for i in range(5)}
    client.put(values, global_step=0)
    peeked = client.peek(limit=1000)

    assert len(peeked.rows) == 1000
    assert peeked.rows[0].values["f0"].startswith("float64[200] 1 1")
    assert peeked.rows[999].values["f4"] == "float64[200]"


def test_of_values_in_shared_memory_type_and_size_are_shown(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=4, storage="shm"))
    client.put({"large": np.ones((4, 50_000)), "text": ["ü" * 60_000] * 4, "small": [1, 2, 3, 4]}, global_step=0)

    assert client.peek(limit=1).rows[0].values == {"large": "float64[50000]", "text": "120,005 bytes", "small": "1"}
