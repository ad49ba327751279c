"""An operator that dies at any call, two of them, clocks that jump: the end is the same, nothing is made twice."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kube.kuberay import KubeRay, stack
from tests.kube.operator.conftest import Start
from tests.kube.operator.inline import children, live
from tests.kube.process import eventually
from tests.kube.proxy import Call, Fault, Proxy, Then, faulty

RUNNING = {"RayCluster": ["s"], "RayJob": ["s-1"], "NetworkPolicy": ["s"]}


def counters(kuberay: KubeRay, namespace: str) -> dict[str, int]:
    found = kuberay.get("TrainingStack", namespace, "s")
    assert found is not None
    return {name: found["status"].get(name, 0) for name in ("attempts", "failures", "restarts", "ended")}


def act_one(kuberay: KubeRay, namespace: str) -> None:
    kuberay.create(stack("s", namespace))


def act_two(kuberay: KubeRay, namespace: str) -> None:
    kuberay.run_cluster(namespace, "s")


def act_three(kuberay: KubeRay, namespace: str) -> None:
    """The driver fails."""
    text = "Job entrypoint command failed with exit code 1"
    kuberay.set_status(
        "RayJob", namespace, "s-1", jobStatus="FAILED", jobDeploymentStatus="Failed", message=text, failed=1
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_operator_that_dies_at_any_call_of_a_life_leaves_what_another_one_finishes(
    kuberay: KubeRay, operator_kubeconfig: Path, new_namespace: Callable[[], str], after: bool
) -> None:
    """Create, first attempt, failed attempt: each act is played with a death at every one of its calls."""
    deaths = 0
    for dies_at in itertools.count():
        namespace = new_namespace()
        lived = True
        for act in (act_one, act_two, act_three):
            act(kuberay, namespace)
            survived, _ = live(operator_kubeconfig, (namespace, "s"), dies_at=dies_at, after=after)
            lived &= survived
            assert live(operator_kubeconfig, (namespace, "s"))[0]
        again, calls = live(operator_kubeconfig, (namespace, "s"))
        assert again
        assert not [call for call in calls if call[0] != "GET"]
        jobs = children(kuberay, namespace)["RayJob"]
        assert (sorted(jobs)[-1], counters(kuberay, namespace)) == (
            "s-2",
            {"attempts": 2, "failures": 1, "restarts": 0, "ended": 1},
        )
        if lived:
            break
        deaths += 1
    assert deaths > 10


class Victim:
    """An operator process that is killed at the n-th call about one stack, once the API server has done it."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.process = start()
        self.dead = False

    def dies_at(self, number: int, name: str) -> Fault:
        if not self.process.runs():  # the death at the last call about a stack may come when all of it is seen
            self.process = self._start()
        process, calls = self.process, itertools.count()
        self.dead = False

        def die() -> None:
            process.kill()
            process.wait()
            self.dead = True

        def fault(call: Call) -> Then | None:
            about = call.path.removesuffix("/status").rsplit("/", 1)[-1] in (name, f"{name}-1")
            return Then(die) if about and not call.is_watch and next(calls) == number else None

        return fault

    def replaced(self) -> None:
        """Another process, if it is dead."""
        if not self.process.runs():
            self.process = self._start()


def test_a_process_that_is_killed_at_any_call_is_replaced_by_one_that_goes_on(
    kuberay: KubeRay, proxy: Proxy, namespace: str, start: Start
) -> None:
    """Each new process is the next stack's victim: the k-th stack sees a death at its k-th call."""
    victim = Victim(start)
    for number in itertools.count():
        with faulty(proxy, victim.dies_at(number, f"s{number}")):
            play(kuberay, namespace, f"s{number}", victim)
        jobs = [each["metadata"]["name"] for each in kuberay.list("RayJob", namespace)]
        assert [job for job in jobs if job.startswith(f"s{number}-")] == [f"s{number}-1"]
        if not victim.dead:
            assert number > 4
            return


def play(kuberay: KubeRay, namespace: str, name: str, victim: Victim) -> None:
    """A stack up to its first attempt, whatever happens to the operator."""
    kuberay.create(stack(name, namespace))
    eventually("a RayCluster or a death", lambda: victim.dead or kuberay.get("RayCluster", namespace, name))
    victim.replaced()
    eventually("a RayCluster", lambda: kuberay.get("RayCluster", namespace, name))
    kuberay.run_cluster(namespace, name)
    eventually("an attempt or a death", lambda: not victim.process.runs() or attempts(kuberay, namespace, name) == 1)
    victim.replaced()
    eventually(f"one attempt of {name}", lambda: attempts(kuberay, namespace, name) == 1)


def attempts(kuberay: KubeRay, namespace: str, name: str) -> int:
    found = kuberay.get("TrainingStack", namespace, name) or {}
    return int(found.get("status", {}).get("attempts", 0))


def test_two_operators_at_once_make_nothing_twice(kuberay: KubeRay, proxy: Proxy, namespace: str, start: Start) -> None:
    start()
    start()
    kuberay.create(stack("s", namespace))
    eventually("the RayCluster", lambda: kuberay.get("RayCluster", namespace, "s"))
    kuberay.run_cluster(namespace, "s")
    eventually("one attempt", lambda: attempts(kuberay, namespace, "s") == 1)
    time.sleep(1)
    before = len(proxy.writes())
    time.sleep(1)

    assert children(kuberay, namespace) == RUNNING
    assert proxy.writes()[before:] == []
    cluster = kuberay.get("RayCluster", namespace, "s")
    assert cluster is not None
    assert cluster["metadata"]["generation"] == 1


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0, -1e9])
def test_a_clock_that_jumps_changes_nothing_that_runs(
    kuberay: KubeRay, operator_kubeconfig: Path, namespace: str, jump: float
) -> None:
    act_one(kuberay, namespace)
    live(operator_kubeconfig, (namespace, "s"))
    act_two(kuberay, namespace)
    live(operator_kubeconfig, (namespace, "s"))

    for now in (lambda: time.time() + jump, time.time):
        assert live(operator_kubeconfig, (namespace, "s"), now=now)[0]
        assert children(kuberay, namespace) == RUNNING
        assert counters(kuberay, namespace)["attempts"] == 1
