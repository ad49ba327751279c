from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle import DeviceGroup
from twinkle.errors import ConfigError
from twinkle.infra.placement import plan, seats


def group(ranks: int, **settings: Any) -> DeviceGroup:
    return DeviceGroup("g", ranks, "cuda", **settings)


def test_a_bundle_is_one_actor_with_all_its_devices() -> None:
    made = plan(group(8, cpus_per_rank=2), ranks_per_actor=4)

    assert (made.bundles, made.bundle, made.strategy) == (2, {"CPU": 8, "GPU": 4}, "PACK")
    assert str(made) == "2 x {CPU: 8, GPU: 4}"


def test_a_bundle_is_one_node_where_the_group_says_how_many_ranks_that_has() -> None:
    made = plan(group(8, ranks_per_node=4, label_selector={"pool": "a"}), ranks_per_actor=2)

    assert (made.bundles, made.bundle, made.strategy, made.labels) == (2, {"GPU": 4}, "STRICT_SPREAD", {"pool": "a"})
    assert seats(made, ["n0", "n1"]) == [0, 0, 1, 1]
    assert str(made) == "2 x {GPU: 4}, each on a node of its own, on nodes with {pool: a}"


def test_ranks_that_need_nothing_still_get_a_place() -> None:
    made = plan(DeviceGroup("g", 4, "cpu", cpus_per_rank=0))

    assert (made.bundles, made.bundle) == (4, {"memory": 1})
    assert str(made) == "4 x {no device, no CPU}"


def test_replicas_that_do_not_fit_a_node_are_refused() -> None:
    with pytest.raises(ConfigError, match="'g' has 3 ranks per node; replicas of 2 ranks do not fit"):
        plan(group(6, ranks_per_node=3), ranks_per_actor=2)


def test_neighbours_share_a_node_however_the_scheduler_mixed_the_bundles() -> None:
    assert seats(plan(group(5)), ["a", "b", "a", "b", "a"]) == [0, 2, 4, 1, 3]


def test_models_stay_whole_where_a_node_has_room_and_what_is_left_comes_last() -> None:
    nodes = ["a", "b", "a", "b", "a", "b"]

    assert [nodes[seat] for seat in seats(plan(group(6)), nodes, together=2)] == ["a", "a", "b", "b", "a", "b"]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=24), st.integers(1, 4))
def test_every_bundle_is_used_once_and_as_many_models_as_can_be_are_whole(nodes: list[str], together: int) -> None:
    nodes = nodes[: len(nodes) - len(nodes) % together] or [nodes[0]] * together
    found = seats(plan(group(len(nodes))), nodes, together)
    models = [found[start : start + together] for start in range(0, len(found), together)]
    whole = sum(len({nodes[seat] for seat in model}) == 1 for model in models)

    assert sorted(found) == list(range(len(nodes)))
    assert whole == sum(count // together for count in Counter(nodes).values())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_seats_never_ask_more_of_a_bundle_than_it_has(nodes: int, actors: int, size: int) -> None:
    made = plan(group(nodes * actors * size, ranks_per_node=actors * size), ranks_per_actor=size)
    found = Counter(seats(made, [f"n{index}" for index in range(nodes)]))

    assert found == dict.fromkeys(range(nodes), actors)
    assert made.bundle["GPU"] == actors * size
