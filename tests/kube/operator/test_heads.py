"""Heads that tell the truth, lie, hang, flood or say nothing: the stack's status says which, and is written seldom."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.kube.kuberay import KubeRay, stack
from tests.kube.operator.conftest import Start
from tests.kube.process import OperatorProcess, eventually
from tests.kube.proxy import Proxy

Object = dict[str, Any]
DOCUMENT = {
    "schema": 1, "attempt": 1, "lineage": 1, "step": 12, "version": "1.12", "reward": 0.8125, "checkpoint_step": 10,
    "queue": {"task": "train", "ready": 320, "required": 512, "summary": "320/512"},
    "tasks": [{"task": "train", "ready": 320, "required": 512, "is_ready": False, "waiting": 1, "reasons": [
        {"code": "field_missing", "rows": 192, "detail": "192 rows lack reward"}]}],
    "partitions": {"alive": 1, "limit": 3, "oldest": 12, "newest": 12},
    "bytes": {"stored": 1, "capacity": None}, "ready": True, "reason": "",
}  # fmt: skip


class Head(BaseHTTPRequestHandler):
    """Every head of the test; the server's `behave` answers for the one of the path /NAMESPACE/CLUSTER/v1/status."""

    def do_GET(self) -> None:
        behave = self.server.behave  # type: ignore[attr-defined]
        behave(self)

    def log_message(self, *_: object) -> None:
        pass

    def say(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def heads() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Head)
    server.daemon_threads = True
    server.behave = lambda head: head.say(json.dumps(DOCUMENT).encode())  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def polling(heads: ThreadingHTTPServer, start: Start) -> OperatorProcess:
    return start("--status-address", f"http://127.0.0.1:{heads.server_port}/{{namespace}}/{{cluster}}")


def running(kuberay: KubeRay, namespace: str) -> None:
    kuberay.create(stack("s", namespace))
    eventually("the RayCluster", lambda: kuberay.get("RayCluster", namespace, "s"))
    kuberay.run_cluster(namespace, "s")
    eventually("the RayJob", lambda: kuberay.get("RayJob", namespace, "s-1"))
    kuberay.set_status("RayJob", namespace, "s-1", jobStatus="RUNNING", jobDeploymentStatus="Running")


def queue(kuberay: KubeRay, namespace: str, answer: str, reason: str) -> Object:
    def found() -> Object | None:
        condition = kuberay.condition(namespace, "s", "QueueReady")
        return condition if (condition.get("status"), condition.get("reason")) == (answer, reason) else None

    return eventually(f"QueueReady={answer}, {reason}", found)


def test_the_queue_is_told_and_not_written_again_while_it_stands(
    kuberay: KubeRay, namespace: str, proxy: Proxy, polling: OperatorProcess
) -> None:
    running(kuberay, namespace)
    told = queue(kuberay, namespace, "False", "MissingField")
    assert "320 of 512 rows ready" in told["message"]
    found = kuberay.get("TrainingStack", namespace, "s")
    assert found is not None
    assert found["status"]["queue"]["summary"] == "320/512"
    assert found["status"]["progress"] == {"step": 12, "reward": "0.8125", "version": "1.12", "checkpointStep": 10}
    assert polling.metric(f'trainingstack_queue_ready{{name="s",namespace="{namespace}"}}') == 0

    time.sleep(1)
    before = len(proxy.writes())
    time.sleep(8)
    assert proxy.writes()[before:] == []


def test_a_queue_that_changes_all_the_time_is_written_every_five_seconds(
    kuberay: KubeRay, namespace: str, proxy: Proxy, polling: OperatorProcess, heads: ThreadingHTTPServer
) -> None:
    running(kuberay, namespace)
    queue(kuberay, namespace, "False", "MissingField")
    steps = iter(range(1000))
    heads.behave = lambda head: head.say(json.dumps({**DOCUMENT, "step": next(steps)}).encode())  # type: ignore[attr-defined]
    time.sleep(1)
    before = len(proxy.writes())
    time.sleep(12)

    assert 1 <= len(proxy.writes()[before:]) <= 4


def flood(head: Head) -> None:
    head.send_response(200)
    head.end_headers()
    try:
        while True:
            head.wfile.write(b" " * 65536)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (lambda head: time.sleep(5), "Timeout"),
        (flood, "TooLarge"),
        (lambda head: head.say(b"", 302, Location="http://169.254.169.254/latest"), "BadAnswer"),
        (lambda head: head.say(b"<html>"), "BadDocument"),
        (lambda head: head.say(json.dumps({**DOCUMENT, "schema": 9}).encode()), "UnknownSchema"),
        (lambda head: head.say(json.dumps({**DOCUMENT, "step": -5}).encode()), "BadDocument"),
    ],
    ids=["hangs", "floods", "redirects", "html", "schema", "lies"],
)
def test_a_head_that_makes_no_sense_is_unknown_for_a_reason_and_what_runs_goes_on(
    kuberay: KubeRay, namespace: str, polling: OperatorProcess, heads: ThreadingHTTPServer, behave: Any, reason: str
) -> None:
    running(kuberay, namespace)
    queue(kuberay, namespace, "False", "MissingField")
    heads.behave = behave  # type: ignore[attr-defined]
    queue(kuberay, namespace, "Unknown", reason)

    assert kuberay.get("RayJob", namespace, "s-1") is not None
    heads.behave = lambda head: head.say(json.dumps(DOCUMENT).encode())  # type: ignore[attr-defined]
    queue(kuberay, namespace, "False", "MissingField")
