from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.kube.specs import stacks
from tests.twinkle_operator.observations import CLOCKS, OBSERVED, STATUSES, read
from tests.twinkle_operator.simulate import World
from twinkle_operator.observed import Observed, Stack
from twinkle_operator.plan import plan
from twinkle_operator.recorder import event_name
from twinkle_operator.state import Status

NOW = 1.8e9


@settings(max_examples=100, deadline=None)
@given(stacks(trained=False), STATUSES, OBSERVED, CLOCKS, st.booleans())
def test_a_plan_never_raises_and_is_the_same_again(
    stack: dict[str, Any], status: Status, observed: Observed, now: float, is_deleting: bool
) -> None:
    given_ = replace(read(stack, status), deleting=is_deleting)
    first = plan(given_, observed, now)

    assert msgspec.json.encode(first) == msgspec.json.encode(plan(given_, observed, now))
    msgspec.convert(msgspec.to_builtins(first.status), Status)
    assert first.resync_after is None or first.resync_after >= 1

    again = plan(replace(given_, status=first.status), observed, now)

    assert (again.status, again.events) == (first.status, ())
    assert {each["kind"] for each in first.children} <= {"NetworkPolicy", "RayCluster", "RayJob"}


@settings(max_examples=20, deadline=None)
@given(stacks())
def test_children_are_owned_named_and_labelled_by_the_stack(stack: dict[str, Any]) -> None:
    given_ = read(stack)
    for child in plan(given_, Observed(), NOW).children:
        metadata = child["metadata"]
        (owner,) = metadata["ownerReferences"]

        assert (metadata["namespace"], metadata["labels"]["twinkle.dev/stack"]) == ("team", given_.name)
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (given_.uid, True, False)
        assert metadata["name"] == given_.name


def test_a_stack_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    world = World()
    world.settle(6)
    made = plan(replace(world.stack(), deleting=True), world.observe(), NOW)

    assert (made.children, made.deletions, made.status) == ((), (), world.status)


def test_a_spec_that_cannot_be_read_touches_no_child() -> None:
    stack = Stack(
        name="demo", namespace="team", uid="u", generation=7, spec_text="Expected `int`, got `str` - at `$.x`"
    )
    made = plan(stack, Observed(), NOW)
    (ready,) = made.status.conditions

    assert (made.children, ready.status, ready.reason, ready.message) == ((), "False", "InvalidSpec", stack.spec_text)
    assert ready.observed_generation == 7
    assert [event.type for event in made.events] == ["Warning"]


def test_kuberay_that_is_missing_is_a_condition() -> None:
    world = World()
    made = plan(world.stack(), Observed(missing="KubeRay is not installed: helm install ..."), NOW)
    (ready,) = made.status.conditions

    assert (made.children, ready.reason, ready.message[:7]) == ((), "KubeRayMissing", "KubeRay")


def test_what_cel_cannot_see_keeps_a_stack_from_running_but_stops_nothing() -> None:
    world = World()
    world.settle(6)
    head = {"podTemplate": {"metadata": {"labels": {"ray.io/cluster": "other"}}, "spec": {}}}
    world.change(head=head)
    world.settle(3)

    assert world.condition("Ready") == ("False", "ReservedLabel")
    assert (len(world.running), world.begun) == (1, ["demo-1"])

    fresh = World()
    fresh.change(head=head)
    fresh.settle(3)

    assert (fresh.cluster, fresh.pods, fresh.condition("Ready")) == (None, [], ("False", "ReservedLabel"))


def test_times_of_conditions_change_with_the_status_alone() -> None:
    world = World()
    world.settle(6)
    before = {each.type: each.last_transition_time for each in world.status.conditions}
    world.now += 1000
    world.exit(1)
    world.kuberay()
    world.reconcile()
    after = {each.type: each.last_transition_time for each in world.status.conditions}

    assert {kind for kind in before if before[kind] != after[kind]} == {"Ready"}


def test_a_group_without_a_ready_pod_says_so() -> None:
    world = World()
    world.reconcile()

    groups = msgspec.to_builtins(world.status)["deviceGroups"]
    assert [group["ready"] for group in groups] == [0, 0]


def test_a_change_of_a_finished_stack_is_answered_once() -> None:
    world = World()
    world.settle(6)
    world.change(image="twinkle:2")
    world.settle(10)
    world.exit(0)
    world.settle(8)
    assert "Finished" not in {event.reason for event in world.events}

    world.change(image="twinkle:3")
    world.settle(8)
    told = [event for event in world.events if event.reason == "Finished"]

    assert [(event.type, event.message.partition(":")[0]) for event in told] == [("Warning", "the stack is finished")]
    assert (world.begun, world.condition("Complete")) == (["demo-1", "demo-2"], ("True", "Completed"))


def test_events_tell_what_happened_once() -> None:
    world = World()
    world.settle(6)
    world.exit(75)
    world.settle(12)
    world.exit(0)
    world.settle(8)

    told = [event.reason for event in world.events]
    assert told == ["AttemptBegan", "Running", "Restart", "AttemptBegan", "Running", "Completed"]
    by_name = sorted(world.events, key=lambda event: event_name(world.stack(), event))
    assert [event.reason for event in by_name] == told


def test_what_ends_a_stack_is_no_restart() -> None:
    """Nothing begins again after a deadline, nor after the last of the restarts that are allowed."""
    late, fruitless = World(), World()
    late.change(run={**late.spec["run"], "activeDeadlineSeconds": 200})
    late.settle(60)
    fruitless.settle(6)
    for _ in range(3):
        fruitless.exit(75)
        fruitless.settle(12)

    assert late.condition("Failed") == ("True", "DeadlineExceeded")
    assert (late.status.attempts, late.status.ended, late.status.restarts) == (1, 1, 0)
    assert [event.reason for event in late.events] == ["AttemptBegan", "Running", "DeadlineExceeded"]
    assert [event.reason for event in fruitless.events].count("Restart") == 2
