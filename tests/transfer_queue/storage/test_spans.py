"""Ranges against a plain set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from transfer_queue.storage.spans import Spans

RANGES = st.tuples(st.integers(0, 30), st.integers(1, 8))


@given(st.lists(st.tuples(st.sampled_from(["add", "cut"]), RANGES)))
def test_the_same_numbers_are_there(acts: list[tuple[str, tuple[int, int]]]) -> None:
    spans, model = Spans(), set[int]()
    for act, (start, size) in acts:
        numbers = set(range(start, start + size))
        getattr(spans, act)(start, start + size)
        model = model | numbers if act == "add" else model - numbers

    assert {at for at in range(40) if spans.meets(at, at + 1)} == model
    assert all(spans.meets(at, at + 5) == bool(model & set(range(at, at + 5))) for at in range(40))
    assert not spans.meets(7, 7)
    assert len(spans._starts) == sum(at - 1 not in model for at in model)
