"""Rows that go on within their last block, beside the same rows with vLLM's own cache manager."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twinkle.sampler.vllm.conftest import imported


@pytest.fixture(scope="module")
def cache() -> Any:
    """The module ``cache``."""
    return imported("cache")


def test_vllm_is_asked_only_for_a_token_that_begins_or_fills_a_block(cache: Any) -> None:
    slots = cache.Slots("full").shortened()
    row = slots.begin("a", 5)
    new = [slots.step(row) for _ in range(8)]

    assert [end for end, _ in slots.asked] == [5, 8, 9, 12, 13]
    assert [bool(blocks) for (blocks,) in new] == [False, False, False, True, False, False, False, True]


@given(lengths=st.lists(st.integers(1, 11), min_size=1, max_size=3), turns=st.lists(st.integers(0, 2), max_size=60))
def test_rows_get_the_blocks_and_leave_the_prefixes_that_they_do_with_vllm(
    cache: Any, lengths: list[int], turns: list[int]
) -> None:
    """Also where the cache is full, and a row that cannot go on gives its blocks back."""
    seen = []
    for slots in (cache.Slots("full"), cache.Slots("full").shortened()):
        rows = [slots.begin(str(i), length) for i, length in enumerate(lengths)]
        steps = []
        for turn in turns:
            row = rows[turn % len(rows)]
            steps.append(slots.step(row))
            if steps[-1] is None:
                slots.manager.free(row)
                row.num_computed_tokens = 0
                rows.remove(row)
            if not rows:
                break
        blocks = [slots.manager.get_block_ids(row.request_id) for row in rows]
        again = [cache.row("again", [*row.all_token_ids, 0]) for row in rows]
        hits = [slots.manager.get_computed_blocks(request)[1] for request in again]
        seen.append((steps, blocks, hits, slots.manager.block_pool.get_num_free_blocks()))

    assert seen[0] == seen[1]


@pytest.mark.parametrize("others", [{"num_lookahead_tokens": 2}, {"delay_cache_blocks": True}], ids=str)
def test_whoever_asks_for_more_is_answered_by_vllm(cache: Any, others: dict[str, Any]) -> None:
    slots = cache.Slots("full").shortened()
    slots.step(slots.begin("a", 1), **others)

    assert slots.asked[-1] == (2, {"num_lookahead_tokens": 0} | others)


@pytest.mark.parametrize(
    ("kinds", "connector"), [(["window"], None), (["full", "window"], None), (["full"], object())],
    ids=["another kind", "two kinds", "a connector"],
)  # fmt: skip
def test_other_caches_are_left_to_vllm(cache: Any, kinds: list[str], connector: object) -> None:
    slots = cache.Slots(*kinds).shortened(connector)

    assert slots.manager.allocate_slots is slots.usual
