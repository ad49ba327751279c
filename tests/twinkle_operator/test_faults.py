"""Whatever is killed, deleted or changed, in whatever order: a stack's life keeps its promises, and comes to rest."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from tests.twinkle_operator.simulate import SPEC, World
from twinkle_operator.plan import plan
from twinkle_operator.words import MOST_FRUITLESS

EXIT_CODES = (0, 1, 2, 75, 137, 143)


class Faults(RuleBasedStateMachine):
    """One stack whose operator may be killed at each call, whose pods, jobs and cluster may go at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.has_jumped = False
        self.attempts = 0
        self.end: tuple[str, str] | None = None

    # -- what the controllers do, in any order -----------------------------------------------------------------------

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()

    @rule(acts=st.integers(0, 4))
    def operator_dies(self, acts: int) -> None:
        self.world.reconcile(acts)

    @rule()
    def kuberay(self) -> None:
        self.world.kuberay()

    @rule(seconds=st.sampled_from([1, 5, 20, 45]))
    def tick(self, seconds: int) -> None:
        self.world.tick(seconds)

    @rule()
    def ask(self) -> None:
        self.world.ask()

    @rule()
    def save_and_stop(self) -> None:
        self.world.save_and_stop()

    @rule(rounds=st.integers(1, 6))
    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.settle(1)
            self.holds()

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data(), how=st.sampled_from(["deleted", "gone", "lost", "restarted"]))
    def pod(self, data: st.DataObject, how: str) -> None:
        pod = data.draw(st.sampled_from(self.world.pods))
        if how == "restarted":
            pod.restarts += 1
        elif how == "lost":
            pod.lost, pod.ready = True, False
        else:
            pod.deleting = True
        if how != "deleted":
            self.world.kubelet()

    @rule(steps=st.integers(1, 5), save=st.booleans())
    def train(self, steps: int, save: bool) -> None:
        self.world.train(steps, save=save)

    @precondition(lambda self: self.world.running)
    @rule(code=st.sampled_from(EXIT_CODES))
    def exit(self, code: int) -> None:
        self.world.exit(code)

    @precondition(lambda self: self.world.status.ray_job in self.world.jobs)
    @rule()
    def somebody_deletes_the_job(self) -> None:
        """One that the status names: one that goes before anybody saw it is made again under its name."""
        self.world.jobs[str(self.world.status.ray_job)].deleting = True

    @precondition(lambda self: self.world.cluster is not None)
    @rule()
    def somebody_deletes_the_cluster(self) -> None:
        self.world.cluster_deleting = True

    @rule(ahead=st.sampled_from([-3600.0, 0.0, 120.0, 3600.0]))
    def clock_jumps(self, ahead: float) -> None:
        self.has_jumped |= ahead != 0
        self.world.ahead = ahead

    # -- what a person changes ---------------------------------------------------------------------------------------

    @rule(suspend=st.booleans(), dp=st.integers(1, 3))
    def suspend(self, suspend: bool, dp: int) -> None:
        sampler, trainer = SPEC["deviceGroups"]
        self.world.change(suspend=suspend, deviceGroups=[sampler | {"mesh": {"dp": dp}}, trainer])

    @rule(image=st.sampled_from(["twinkle:1", "twinkle:2", "twinkle:bad"]))
    def image(self, image: str) -> None:
        self.world.bad_images = {"twinkle:bad"}
        self.world.change(image=image)

    @rule(steps=st.integers(1, 2), limit=st.sampled_from([None, 60, 3600]))
    def run_settings(self, steps: int, limit: int | None) -> None:
        """A limit is over before the stack is looked at in the end, or only long after."""
        run = SPEC["run"] | {"overrides": [f"loop.steps={steps}"], "activeDeadlineSeconds": limit}
        self.world.change(run=run)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        world, status = self.world, self.world.status
        untold = [driver for driver in world.running if driver.told is None]
        assert len(untold) <= 1, "two drivers run at once"
        assert self.has_jumped or len(world.running) <= 1, "a driver began before the last one was dead"
        assert status.attempts >= self.attempts, "attempts went back"
        self.attempts = status.attempts
        finished = {each.type: each.reason for each in status.conditions if each.status == "True"}
        ended_well = finished.get("Complete") == "Completed" or finished.get("Failed") == "InvalidRun"
        uncounted = status.ended - status.failures - status.restarts
        is_late = finished.get("Failed") == "DeadlineExceeded"  # it may come while nothing runs
        assert uncounted == ended_well or (is_late and uncounted == 1), "an end counted twice"
        assert status.ended <= status.attempts
        assert status.fruitless <= MOST_FRUITLESS
        for kind in ("Complete", "Failed"):
            if kind in finished:
                assert self.end in (None, (kind, finished[kind])), "the end changed"
                self.end = (kind, finished[kind])

    @invariant()
    def a_plan_over_its_own_status_changes_nothing(self) -> None:
        world = self.world
        first = world.plan()
        again = plan(replace(world.stack(), status=first.status), world.observe(), world.now + world.ahead)

        assert first.children == again.children
        assert set(first.deletions) <= set(again.deletions)  # a RayJob goes once the status names it
        assert first.status == again.status
        assert again.events == ()
        assert msgspec.json.encode(world.plan()) == msgspec.json.encode(first)

    def teardown(self) -> None:
        """Without trouble it comes to rest: suspended without pods, finished, refused, or with one driver that runs."""
        world = self.world
        world.settle(40)
        self.holds()
        writes, deleted = world.writes, len(world.events)
        world.settle(30)
        assert (world.writes, len(world.events)) == (writes, deleted), "it never rests"
        if any(each.status == "True" for each in world.status.conditions if each.type in ("Complete", "Failed")):
            assert (world.pods, world.running) == ([], [])
        elif world.spec.get("suspend"):
            assert (world.cluster, world.pods, world.running) == (None, [], [])
            assert world.condition("Suspended") == ("True", "Suspended")
        elif world.spec["image"] != "twinkle:bad":
            assert world.condition("Ready") == ("True", "Running")
            assert [driver.told for driver in world.running] == [None]


Faults.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestFaults = Faults.TestCase
