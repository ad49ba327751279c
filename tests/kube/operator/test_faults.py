"""An API server, and a way to it, that fail in every way: the end is the same."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay, stack
from tests.kube.operator.conftest import INACTIVITY_S, Start
from tests.kube.operator.inline import children
from tests.kube.process import OperatorProcess, eventually
from tests.kube.proxy import DROP, Answer, Call, Fault, Proxy, faulty

RUNNING = {"RayCluster": ["s"], "RayJob": ["s-1"], "NetworkPolicy": ["s"]}
RECOVERS_WITHIN_S = 60.0


def status(code: int, reason: str, message: str = "a fault of the test") -> str:
    return json.dumps({"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message})


def once_each(fault: Answer | str) -> Fault:
    """That fault for the first of each kind of call; watches and lists among them, discovery not."""
    seen: Counter[tuple[str, str, bool]] = Counter()

    def decide(call: Call) -> Answer | str | None:
        kind = (call.method, call.path, call.is_watch)
        seen[kind] += 1
        return fault if seen[kind] == 1 and "/namespaces/" in call.path else None

    return decide


def play(kuberay: KubeRay, namespace: str) -> None:
    """A stack up to its first attempt."""
    kuberay.create(stack("s", namespace))
    get = kuberay.get
    eventually("the RayCluster", lambda: get("RayCluster", namespace, "s"), RECOVERS_WITHIN_S)
    kuberay.run_cluster(namespace, "s")
    eventually("the RayJob", lambda: get("RayJob", namespace, "s-1"), RECOVERS_WITHIN_S)
    eventually("the attempt is counted", lambda: attempts(kuberay, namespace) == 1, RECOVERS_WITHIN_S)


def attempts(kuberay: KubeRay, namespace: str) -> int:
    found = kuberay.get("TrainingStack", namespace, "s") or {}
    return int(found.get("status", {}).get("attempts", 0))


@pytest.mark.parametrize(
    "fault",
    [
        Answer(409, status(409, "Conflict")),
        Answer(429, status(429, "TooManyRequests"), (("Retry-After", "1"),)),
        Answer(500, status(500, "InternalError")),
        Answer(503, "upstream is gone"),
        Answer(200, "<html>a login page</html>"),
        DROP,
    ],
    ids=["409", "429", "500", "503", "html", "drop"],
)
def test_every_call_may_fail_once(
    kuberay: KubeRay, namespace: str, proxy: Proxy, start: Start, fault: Answer | str
) -> None:
    start()
    with faulty(proxy, once_each(fault)):
        proxy.cut()
        play(kuberay, namespace)

    assert children(kuberay, namespace) == RUNNING


def test_retry_after_is_kept(kuberay: KubeRay, namespace: str, proxy: Proxy, operator: OperatorProcess) -> None:
    times: list[float] = []

    def fault(call: Call) -> Answer | None:
        if call.method != "PATCH" or "/networkpolicies/" not in call.path:
            return None
        times.append(time.monotonic())
        answer = Answer(429, status(429, "TooManyRequests"), (("Retry-After", "2"),))
        return answer if len(times) == 1 else None

    with faulty(proxy, fault):
        kuberay.create(stack("s", namespace))
        eventually("a second try", lambda: len(times) > 1)

    assert times[1] - times[0] >= 2.0


def test_what_is_deleted_while_nobody_watches_is_made_again(
    kuberay: KubeRay, namespace: str, proxy: Proxy, operator: OperatorProcess
) -> None:
    """The watch ends with 410 Gone, and the list that follows says nothing of what is no more."""
    play(kuberay, namespace)
    with faulty(proxy, lambda call: DROP if call.is_watch else None):
        proxy.cut()
        kuberay.delete("NetworkPolicy", namespace, "s")
        time.sleep(0.5)
    gone = {"type": "ERROR", "object": json.loads(status(410, "Expired"))}
    eventually("a watch", lambda: proxy.watches)
    proxy.say(json.dumps(gone).encode() + b"\n")

    eventually("the NetworkPolicy", lambda: kuberay.get("NetworkPolicy", namespace, "s"), RECOVERS_WITHIN_S)


def test_dropped_watches_are_opened_again(
    kuberay: KubeRay, namespace: str, proxy: Proxy, operator: OperatorProcess
) -> None:
    for _ in range(5):
        proxy.cut()
        time.sleep(0.05)
    play(kuberay, namespace)

    assert children(kuberay, namespace) == RUNNING


def test_an_error_in_a_watch_ends_it_and_not_the_operator(
    kuberay: KubeRay, namespace: str, proxy: Proxy, operator: OperatorProcess
) -> None:
    error = {"type": "ERROR", "object": json.loads(status(500, "InternalError"))}
    proxy.say(json.dumps(error).encode() + b"\n")
    play(kuberay, namespace)

    assert children(kuberay, namespace) == RUNNING


def test_silent_watches_are_noticed(kuberay: KubeRay, namespace: str, proxy: Proxy, operator: OperatorProcess) -> None:
    proxy.silence()
    play(kuberay, namespace)

    assert operator.ask("/healthz") == 200


def test_an_operator_that_hears_nothing_any_more_is_not_alive(
    namespace: str, proxy: Proxy, operator: OperatorProcess
) -> None:
    with faulty(proxy, lambda call: DROP):
        proxy.cut()
        eventually("/healthz fails", lambda: operator.ask("/healthz") == 503, 2 * INACTIVITY_S + RECOVERS_WITHIN_S)
    eventually("/healthz is well again", lambda: operator.ask("/healthz") == 200, RECOVERS_WITHIN_S)
    eventually("/readyz is well again", lambda: operator.ask("/readyz") == 200, RECOVERS_WITHIN_S)


def test_the_api_server_restarts_and_forgets_its_history(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, proxy: Proxy, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace))
    eventually("the RayCluster", lambda: kuberay.get("RayCluster", namespace, "s"))
    api_server.restart()
    kuberay.run_cluster(namespace, "s")
    eventually("the RayJob", lambda: kuberay.get("RayJob", namespace, "s-1"), RECOVERS_WITHIN_S)
    api_server.forget_history()
    kuberay.delete("NetworkPolicy", namespace, "s")
    eventually("the NetworkPolicy", lambda: kuberay.get("NetworkPolicy", namespace, "s"), RECOVERS_WITHIN_S)

    assert children(kuberay, namespace) == RUNNING
    assert attempts(kuberay, namespace) == 1
