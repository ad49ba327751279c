"""The cache: late, doubled and missing events, and stacks that have had the same name."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.twinkle_operator import raw
from twinkle_operator.cache import MOST_WARNINGS, Cache
from twinkle_operator.observed import Observed
from twinkle_operator.resources import CLUSTERS, EVENTS, JOBS, PODS, STACKS

KEY = ("n", "s")


def filled() -> Cache:
    cache = Cache()
    cache.seen(STACKS, raw.stack(1))
    cache.seen(CLUSTERS, raw.child("RayCluster", 2))
    return cache


def observed(cache: Cache) -> Observed:
    stack = cache.stack(KEY)
    assert stack is not None
    return cache.observe(stack, None, (), "")


def test_an_object_names_the_stack_whose_view_it_changed() -> None:
    cache = Cache()

    assert cache.seen(STACKS, raw.stack(1)) == KEY
    assert cache.seen(CLUSTERS, raw.child("RayCluster", 2)) == KEY
    assert cache.seen(PODS, raw.pod(3)) == KEY


def test_what_is_seen_again_or_changes_nothing_that_is_read_wakes_nobody() -> None:
    cache = filled()
    cache.seen(PODS, raw.pod(3))

    assert cache.seen(STACKS, raw.stack(1)) is None
    assert cache.seen(STACKS, raw.stack(9)) is None
    assert cache.seen(PODS, raw.pod(4)) is None
    assert cache.seen(CLUSTERS, raw.child("RayCluster", 5, status={"lastUpdateTime": "now"})) is None
    assert cache.seen(CLUSTERS, raw.child("RayCluster", 6, status={"state": "ready"})) == KEY


def test_an_older_state_never_replaces_a_newer_one() -> None:
    cache = filled()
    cache.seen(CLUSTERS, raw.child("RayCluster", 7, status={"state": "ready"}))
    cache.seen(CLUSTERS, raw.child("RayCluster", 5, status={"state": "suspended"}))
    cache.gone(CLUSTERS, raw.child("RayCluster", 6, uid="earlier"))

    cluster = observed(cache).cluster
    assert cluster is not None
    assert cluster.state == "ready"


def test_children_and_pods_of_an_earlier_stack_of_the_name_are_not_observed() -> None:
    cache = filled()
    cache.seen(PODS, raw.pod(3))
    cache.seen(STACKS, raw.stack(4, uid="stack-2"))

    assert observed(cache) == Observed()
    child = cache.child(KEY, "RayCluster", "s")
    assert child is not None
    assert child.owner == "stack-1"


def test_pods_of_a_cluster_that_is_gone_and_pods_of_no_cluster_are_left_out() -> None:
    cache = filled()
    cache.seen(PODS, raw.pod(3, name="mine"))
    cache.seen(PODS, raw.pod(4, name="earlier", owner="child-0"))
    submitter = raw.pod(5, name="submitter")
    del submitter["metadata"]["labels"]["ray.io/node-type"]
    cache.seen(PODS, submitter)

    assert [pod.name for pod in observed(cache).pods] == ["mine"]


def test_the_name_of_an_object_is_no_other_namespaces() -> None:
    cache = filled()
    elsewhere = raw.child("RayCluster", 9)
    elsewhere["metadata"]["namespace"] = "other"
    cache.seen(CLUSTERS, elsewhere)
    cache.gone(CLUSTERS, elsewhere)

    assert observed(cache).cluster is not None


def test_a_list_drops_what_is_not_in_it_unless_it_is_younger() -> None:
    cache = filled()
    cache.seen(
        JOBS, raw.child("RayJob", 3, name="s-1", uid="j1", metadata={"labels": raw.child("x", 1)["metadata"]["labels"]})
    )
    cache.begin_list(JOBS)
    cache.seen(JOBS, raw.child("RayJob", 12, name="s-2", uid="j2"))

    assert cache.end_list(JOBS, None, set(), "10") == {KEY}
    assert [job.name for job in observed(cache).jobs] == ["s-2"]


def test_a_list_does_not_bring_back_what_was_deleted_while_it_was_read() -> None:
    cache = filled()
    job = raw.child("RayJob", 3, name="s-1", uid="j1")
    cache.seen(JOBS, job)
    cache.begin_list(JOBS)
    cache.gone(JOBS, raw.child("RayJob", 11, name="s-1", uid="j1"))
    cache.seen(JOBS, job)
    cache.end_list(JOBS, None, {("n", "s-1")}, "10")

    assert observed(cache).jobs == ()


def test_a_list_that_ends_first_keeps_what_the_other_one_must_not_bring_back() -> None:
    cache = filled()
    cache.begin_list(STACKS)
    cache.begin_list(STACKS)
    cache.end_list(STACKS, None, {("n", "s")}, "5")
    cache.gone(STACKS, raw.stack(7))

    assert cache.seen(STACKS, raw.stack(4)) is None
    cache.end_list(STACKS, None, {("n", "s")}, "5")
    assert cache.stacks() == []


def test_a_list_of_one_namespace_says_nothing_of_others() -> None:
    cache = filled()
    cache.begin_list(CLUSTERS)

    assert cache.end_list(CLUSTERS, "other", set(), "99") == set()
    assert observed(cache).cluster is not None


def test_warnings_are_of_the_very_object_newest_first_and_few() -> None:
    cache = filled()
    for minute in range(20):
        cache.seen(EVENTS, raw.warning(reason=f"R{minute}", at=f"2026-01-01T00:{minute:02}:00Z"))
    cache.seen(EVENTS, raw.warning(uid="earlier", reason="Old", at="2026-01-02T00:00:00Z"))

    reasons = [reason for reason, _ in observed(cache).warnings]
    assert reasons[:2] == ["R19", "R18"]
    assert len(reasons) == MOST_WARNINGS - 1
    assert "Old" not in reasons


def test_warnings_of_a_spec_that_was_changed_since_are_forgotten() -> None:
    cache = filled()
    cache.seen(EVENTS, raw.warning())
    cache.seen(CLUSTERS, raw.child("RayCluster", 5, metadata={"generation": 2}))

    assert observed(cache).warnings == ()


def test_what_the_server_says_is_gone_is_gone_only_if_it_is_the_same_object() -> None:
    cache = filled()
    cache.removed(CLUSTERS, "n", "s", "another")
    assert observed(cache).cluster is not None

    cache.removed(CLUSTERS, "n", "s", "child-1")
    assert observed(cache).cluster is None


@given(st.lists(st.sampled_from(["", "ready", "suspended", "gone"]), min_size=1, max_size=8), st.randoms())
def test_events_in_any_order_and_number_end_where_they_would_have_ended_in_order(
    history: list[str], chance: random.Random
) -> None:
    events: list[tuple[str, dict[str, Any]]] = [
        (state, raw.child("RayCluster", version, status={"state": state})) for version, state in enumerate(history, 3)
    ]
    if "gone" in history[:-1]:
        return  # what comes after a deletion is another object; kopf keeps the order of one object
    shuffled = [*events, *events]
    chance.shuffle(shuffled)
    if history[-1] == "gone":
        shuffled = [each for each in shuffled if each[0] != "gone"] + [events[-1]]
    cache = filled()
    for state, event in shuffled:
        (cache.gone if state == "gone" else cache.seen)(CLUSTERS, event)

    cluster = observed(cache).cluster
    assert (cluster.state if cluster else "gone") == history[-1]
