"""The scripts that `helm test` runs in a pod, run here as the account that the pod would have."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.render import OPERATOR, STACK, only, rendered, run
from tests.kube.cluster import ApiServer

CRD = OPERATOR / "files" / "trainingstacks.twinkle.dev.yaml"
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(api_server: ApiServer, tmp_path: Path) -> Script:
    """Runs a script as a pod of that service account would."""

    def run_as(account: str, source: Path, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        kubeconfig = json.loads(api_server.kubeconfig(service_account=account).read_text())
        authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
        (tmp_path / "token").write_text(kubeconfig["users"][0]["user"]["token"])
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
        host, _, port = api_server.url.removeprefix("https://").rpartition(":")
        environment = {
            "PATH": os.environ["PATH"],
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "SERVICE_ACCOUNT": str(tmp_path),
            "DEADLINE_S": str(seconds),
        }
        command = [sys.executable, "-c", source.read_text(), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)

    return run_as


@pytest.fixture
def readyz() -> Iterator[tuple[str, list[int]]]:
    """A server in the operator's place: its URL, and the statuses that it answers, one after the other."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()
            self.wfile.write(b"ready")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/readyz", statuses
        server.shutdown()
        thread.join()


def test_the_operators_test_waits_until_it_is_ready(
    script: Script, api_server: ApiServer, namespace: str, readyz: tuple[str, list[int]]
) -> None:
    api_server.install_crds(CRD)
    url, statuses = readyz
    statuses += [503, 200]

    ended = script(f"{namespace}/default", OPERATOR / "files" / "ready.py", url)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "TrainingStacks are served; the operator says: ready\n"


def test_the_operators_test_fails_with_a_sentence(
    script: Script, api_server: ApiServer, namespace: str, readyz: tuple[str, list[int]]
) -> None:
    api_server.install_crds(CRD)
    url, statuses = readyz
    statuses += [503]

    ended = script(f"{namespace}/default", OPERATOR / "files" / "ready.py", url, seconds=0)

    assert ended.returncode == 1
    assert f"Not ready after 0 s: {url}: HTTP Error 503" in ended.stderr


@pytest.mark.parametrize(
    ("condition", "status", "code", "said"),
    [
        ("Ready", "True", 0, "Ready: Because: It is so."),
        ("Complete", "True", 0, "Complete: Because: It is so."),
        ("Failed", "True", 1, "Failed: Because: It is so."),
        ("Ready", "False", 1, "not Ready: Because: It is so."),
        (None, "", 1, "the operator has not written a condition Ready yet; does it run?"),
    ],
)
def test_the_stacks_test_reads_its_conditions_and_nothing_else(
    script: Script,
    helm: Path,
    api_server: ApiServer,
    namespace: str,
    condition: str | None,
    status: str,
    code: int,
    said: str,
) -> None:
    api_server.install_crds(CRD)
    _install(helm, api_server, namespace)
    if condition:
        _say(api_server, namespace, condition, status)

    ended = script(f"{namespace}/demo-test", STACK / "files" / "ready.py", namespace, "demo", "0")
    other = script(f"{namespace}/demo-test", STACK / "files" / "ready.py", namespace, "other", "0")

    assert (ended.returncode, ended.stdout) == (code, f"{said}\n"), ended.stderr
    assert "403" in other.stdout


def _install(helm: Path, api_server: ApiServer, namespace: str) -> None:
    """The chart and, as `helm test` would, the objects of its test."""
    where = f"--namespace={namespace}"
    run(helm, "install", "demo", str(STACK), where, kubeconfig=api_server.admin)
    text = run(helm, "template", "demo", str(STACK), where, "--show-only=templates/tests/ready.yaml")
    account = [each for each in yaml.safe_load_all(text) if each and each["kind"] != "Pod"]
    api_server.kubectl("apply", where, "--filename=-", stdin="---\n".join(json.dumps(each) + "\n" for each in account))


def _say(api_server: ApiServer, namespace: str, condition: str, status: str) -> None:
    """Write a condition, as the operator would."""
    entry: dict[str, Any] = {
        "type": condition,
        "status": status,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "Because",
        "message": "It is so.",
    }
    patch = json.dumps({"status": {"conditions": [entry]}})
    arguments = ("--subresource=status", "--type=merge", f"--patch={patch}")
    api_server.kubectl("patch", "tstack", "demo", f"--namespace={namespace}", *arguments)


@pytest.mark.parametrize("chart", [OPERATOR, STACK])
def test_the_pod_runs_the_script(helm: Path, chart: Path) -> None:
    (container,) = only(rendered(helm, chart), "Pod")["spec"]["containers"]

    assert container["args"][0].strip() == (chart / "files" / "ready.py").read_text().strip()
    compile(container["args"][0], "ready.py", "exec")
