"""The life of a stack in the simulated cluster: attempts, restarts, suspend and resume, rollouts, deadlines, end."""

from __future__ import annotations

import pytest

from tests.twinkle_operator.simulate import SPEC, World
from twinkle_operator.observed import Poll
from twinkle_operator.words import REFUSED


@pytest.fixture
def world() -> World:
    made = World()
    made.settle(6)
    assert made.condition("Ready") == ("True", "Running")
    return made


def test_an_attempt_begins_once_head_and_groups_are_ready() -> None:
    world = World()
    world.reconcile()
    assert world.condition("Ready") == ("False", "Provisioning")
    world.kuberay()
    world.reconcile()

    assert (world.begun, world.condition("Ready")) == ([], ("False", "HeadNotReady"))

    for pod in world.pods:
        pod.ready = pod.group != "sampler"
    world.reconcile()

    assert (world.begun, world.condition("Ready"), world.status.samplers) == ([], ("False", "PodsNotReady"), "0/2")

    world.kubelet()
    world.reconcile()

    assert (world.begun, world.status.attempts) == (["demo-1"], 0)

    world.kuberay()
    world.ask()
    world.reconcile()

    assert (world.status.attempts, world.status.ray_job, world.condition("Ready")) == (1, "demo-1", ("True", "Running"))
    assert world.condition("QueueReady") == ("False", "MissingField")
    assert world.status.queue is not None
    assert world.status.queue.summary == "48/64"


def test_a_run_that_ends_well_is_complete_and_its_cluster_goes_later(world: World) -> None:
    world.exit(0)
    world.kuberay()
    world.reconcile()

    assert world.condition("Complete") == ("True", "Completed")
    assert world.plan().resync_after == 60

    world.tick(59)
    world.reconcile()
    assert not world.cluster_deleting
    world.tick(2)
    world.settle(5)

    assert (world.cluster, world.pods, list(world.jobs)) == (None, [], ["demo-1"])
    assert world.condition("Complete") == ("True", "Completed")
    assert world.condition("Ready") == ("False", "Completed")
    assert world.status.progress is not None


@pytest.mark.parametrize(
    ("code", "failures", "restarts"), [(1, 1, 0), (137, 1, 0), (75, 0, 1), (143, 0, 1)], ids=lambda each: str(each)
)
def test_an_exit_code_says_whether_it_counts(world: World, code: int, failures: int, restarts: int) -> None:
    world.exit(code)
    world.kuberay()
    world.settle(6)

    assert (world.status.failures, world.status.restarts) == (failures, restarts)
    assert (world.begun, list(world.jobs)) == (["demo-1", "demo-2"], ["demo-2"])
    assert world.condition("Ready") == ("True", "Running")


def test_bad_input_is_not_tried_again(world: World) -> None:
    world.exit(2)
    world.kuberay()
    world.settle(4)

    assert world.condition("Failed") == ("True", "InvalidRun")
    assert (world.begun, world.status.failures) == (["demo-1"], 0)


def test_entrypoints_may_fail_as_often_as_backoff_limit_says(world: World) -> None:
    for _ in range(3):
        assert world.condition("Failed") == ("False", "NotFinished")
        world.exit(1)
        world.settle(6)

    assert world.condition("Failed") == ("True", "BackoffLimitExceeded")
    assert (world.status.failures, world.status.attempts, list(world.jobs)) == (3, 3, ["demo-3"])


def test_a_driver_that_was_killed_with_its_head_does_not_count(world: World) -> None:
    """An eviction without grace kills both: 137 is no word of the program."""
    head = world.head()
    assert head is not None
    world.exit(137)
    world.kuberay()
    head.lost = True
    world.settle(8)

    assert (world.status.failures, world.status.restarts) == (0, 1)


@pytest.mark.parametrize("how", ["deleted", "restarted", "evicted"])
def test_a_lost_head_is_a_restart_on_the_next_one(world: World, how: str) -> None:
    head = world.head()
    assert head is not None
    if how == "deleted":
        world.pods.remove(head)
    elif how == "restarted":
        head.restarts += 1
    else:
        head.lost = True
    world.kubelet()
    world.reconcile()

    assert (world.status.restarts, world.status.failures) == (1, 0)
    assert world.jobs["demo-1"].deleting

    world.settle(12)

    assert (world.begun, world.condition("Ready")) == (["demo-1", "demo-2"], ("True", "Running"))
    bound = world.observe().jobs[0]
    head = world.head()
    assert head is not None
    assert (bound.head_uid, bound.head_restarts) == (head.uid, head.restarts)


def test_restarts_without_a_new_checkpoint_end_the_stack(world: World) -> None:
    world.train(10, save=True)
    for round_ in range(3):
        world.ask()
        world.reconcile()
        assert world.condition("Failed") == ("False", "NotFinished"), round_
        world.exit(75)
        world.settle(12)

    assert world.condition("Failed") == ("True", "NoProgress")
    assert world.status.attempts == 3


def test_a_new_checkpoint_forgives_the_restarts_before_it(world: World) -> None:
    for _ in range(6):
        world.train(1, save=True)
        world.ask()
        world.exit(75)
        world.settle(12)

    assert (world.status.restarts, world.condition("Ready")) == (6, ("True", "Running"))


def test_suspend_saves_then_gives_every_pod_back_and_resume_goes_on(world: World) -> None:
    world.train(7)
    world.change(suspend=True)
    world.reconcile()
    world.kuberay()

    assert world.running[0].told == world.now
    assert world.condition("Ready") == ("False", "Suspending")

    world.ask()
    world.reconcile()
    assert not world.cluster_deleting  # it has not saved yet
    world.save_and_stop()
    world.tick(2)
    world.ask()
    world.reconcile()
    assert world.cluster_deleting
    world.settle(4)

    assert (world.pods, world.condition("Suspended"), world.saved) == ([], ("True", "Suspended"), 7)
    assert world.status.restarts == 1

    world.change(suspend=False, deviceGroups=[SPEC["deviceGroups"][0] | {"mesh": {"dp": 4}}, SPEC["deviceGroups"][1]])
    world.settle(8)

    assert (world.begun, world.status.samplers) == (["demo-1", "demo-2"], "4/4")
    assert world.running[0].step == 7


@pytest.fixture
def fleeting() -> World:
    """A run without a volume that has saved step 7."""
    made = World(spec=SPEC | {"run": {"experiment": "quickstart"}})
    made.settle(6)
    made.train(7, save=True)
    made.settle(2)
    assert made.status.progress is not None
    assert made.status.progress.checkpoint_step == 7
    return made


def said(world: World) -> str:
    return next(each.message for each in world.status.conditions if each.type == "Ready")


def test_suspend_without_a_volume_promises_no_checkpoint(fleeting: World) -> None:
    fleeting.change(suspend=True)
    fleeting.reconcile()
    assert "the run begins anew" in said(fleeting)
    fleeting.settle(8)

    assert said(fleeting).startswith("suspended: no pods; spec.suspend=false is a new start: the run begins anew")
    assert fleeting.status.progress is not None
    assert (fleeting.status.progress.step, fleeting.status.progress.checkpoint_step) == (7, None)
    assert "the run begins anew" in next(each.message for each in fleeting.events if each.reason == "Restart")

    fleeting.change(suspend=False)
    fleeting.settle(8)

    assert (fleeting.begun, fleeting.running[0].step) == (["demo-1", "demo-2"], 0)


def test_a_rollout_without_a_volume_says_that_the_run_begins_anew(fleeting: World) -> None:
    fleeting.change(image="twinkle:2")
    fleeting.reconcile()

    assert "the run begins anew" in said(fleeting)
    assert "checkpoint" not in said(fleeting)

    fleeting.settle(10)

    assert fleeting.status.progress is not None
    assert fleeting.status.progress.checkpoint_step is None


@pytest.mark.parametrize("how", ["gone", "lost"])
def test_a_lost_head_without_a_volume_takes_its_checkpoint_along(fleeting: World, how: str) -> None:
    head = fleeting.head()
    assert head is not None
    head.lost, head.deleting = how == "lost", how == "gone"
    fleeting.kubelet()
    fleeting.reconcile()

    assert fleeting.status.progress is not None
    assert fleeting.status.progress.checkpoint_step is None
    assert "the run begins anew" in fleeting.events[-1].message


def test_a_head_that_stays_keeps_the_checkpoint_without_a_volume(fleeting: World) -> None:
    fleeting.change(run={"experiment": "quickstart", "overrides": ["loop.steps=9"]})
    for _ in range(16):
        fleeting.settle(1)
        assert fleeting.status.progress is not None
        assert fleeting.status.progress.checkpoint_step == 7

    assert fleeting.begun == ["demo-1", "demo-2"]


def test_a_driver_that_does_not_save_is_waited_for_30_seconds(world: World) -> None:
    world.train(7)
    world.ask()
    world.change(suspend=True)
    planned = world.reconcile()
    world.kuberay()
    assert planned.resync_after == 30

    for _ in range(14):
        world.now += 2
        world.ask()
        world.reconcile()
        assert not world.cluster_deleting
    world.now += 2
    world.reconcile()

    assert world.cluster_deleting


def test_what_a_driver_said_before_it_was_told_to_stop_is_no_checkpoint_of_its_last_step(world: World) -> None:
    world.train(7, save=True)
    world.ask()
    world.change(suspend=True)
    world.reconcile()
    said = world.poll
    assert said is not None
    world.poll = Poll(at=world.now + 3, why="Timeout", progress=said.progress)
    world.reconcile()

    assert not world.cluster_deleting


def test_resume_within_a_second_begins_no_second_driver(world: World) -> None:
    world.change(suspend=True)
    world.reconcile()
    world.change(suspend=False)
    world.reconcile()
    world.kuberay()
    for _ in range(7):
        world.reconcile()
        world.kuberay()
        world.tick(3)
        world.ask()
        assert len(world.running) <= 1
    world.settle(4)

    assert (world.begun, len(world.running)) == (["demo-1", "demo-2"], 1)


def test_another_template_rolls_the_pods_after_the_driver_has_saved(world: World) -> None:
    old = {pod.uid for pod in world.pods}
    world.train(3)
    world.change(image="twinkle:2")
    planned = world.reconcile()

    assert [child["kind"] for child in planned.rehearsal] == ["RayCluster"]
    assert [child["kind"] for child in planned.children] == ["NetworkPolicy"]
    assert world.condition("Ready") == ("False", "RollingOut")

    world.settle(10)

    assert (world.saved, world.begun) == (3, ["demo-1", "demo-2"])
    assert not old & {pod.uid for pod in world.pods}
    assert world.condition("Ready") == ("True", "Running")


def test_while_the_head_that_was_rolled_goes_ready_says_so_and_not_that_its_driver_stops(world: World) -> None:
    world.change(image="twinkle:2")
    world.reconcile()
    world.kuberay()
    world.save_and_stop()
    world.tick(5)
    world.ask()
    world.reconcile()
    for pod in world.pods:
        pod.deleting = True
    world.poll = None  # a head that is going is not asked
    world.reconcile()

    assert world.condition("Ready") == ("False", "HeadNotReady")


def test_a_template_that_is_refused_stops_nothing(world: World) -> None:
    world.bad_images.add("twinkle:bad")
    world.change(image="twinkle:bad")
    world.settle(4)

    assert world.condition("Ready") == ("False", "InvalidPodTemplate")
    assert (world.begun, len(world.running), world.running[0].told) == (["demo-1"], 1, None)

    world.change(image="twinkle:2")
    world.settle(10)

    assert world.condition("Ready") == ("True", "Running")


def test_other_settings_begin_another_attempt_on_the_same_pods(world: World) -> None:
    old = {pod.uid for pod in world.pods}
    world.change(run={**SPEC["run"], "overrides": ["loop.steps=9"]})
    world.settle(16)

    assert (world.begun, {pod.uid for pod in world.pods}) == (["demo-1", "demo-2"], old)
    assert "loop.steps=9" in world.jobs["demo-2"].manifest["spec"]["entrypoint"]


def test_a_run_is_not_ready_while_nothing_listens_on_its_head(world: World) -> None:
    """KubeRay says RUNNING before the driver is there, and until it has noticed that it is gone."""
    world.poll = Poll(at=world.now, why=REFUSED, message="connection refused")
    world.reconcile()
    assert world.condition("Ready") == ("False", "NoDriver")

    world.ask()
    world.reconcile()
    assert world.condition("Ready") == ("True", "Running")

    world.poll = Poll(at=world.now, why="Timeout", message="no answer")  # busy, or behind a NetworkPolicy
    world.reconcile()
    assert world.condition("Ready") == ("True", "Running")


def test_no_driver_begins_beside_one_that_is_stopping(world: World) -> None:
    world.ask()
    world.change(run={**SPEC["run"], "overrides": ["loop.steps=9"]})
    for _ in range(20):
        world.reconcile()
        world.kuberay()
        world.tick(3)  # it saves for as long as it is let
        assert len(world.running) <= 1

    assert (world.begun, [driver.told for driver in world.running]) == (["demo-1", "demo-2"], [None])


def test_the_deadline_leaves_suspension_out(world: World) -> None:
    world.change(run={**SPEC["run"], "activeDeadlineSeconds": 200})
    world.change(suspend=True)
    world.settle(4)
    world.tick(1000)
    world.change(suspend=False)
    world.settle(8)
    assert world.condition("Failed") == ("False", "NotFinished")
    world.tick(200)
    world.train(1)
    world.reconcile()

    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    assert not world.cluster_deleting

    world.settle(16)
    assert (world.pods, world.running, world.saved) == ([], [], 1)


def test_a_cluster_that_somebody_deleted_comes_back(world: World) -> None:
    world.cluster_deleting = True
    world.settle(10)

    assert (world.begun, world.status.restarts) == (["demo-1", "demo-2"], 1)
    assert world.condition("Ready") == ("True", "Running")


def test_with_kueue_a_live_cluster_is_left_alone() -> None:
    world = World(labels={"kueue.x-k8s.io/queue-name": "gpus"})
    world.settle(6)

    assert world.cluster is not None
    assert world.cluster["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "suspend" not in world.cluster["spec"]
    assert [child["kind"] for child in world.plan().children] == ["NetworkPolicy"]


def test_nothing_is_written_when_nothing_changes(world: World) -> None:
    world.settle(3)
    before = world.writes
    world.settle(10)

    assert world.writes == before
