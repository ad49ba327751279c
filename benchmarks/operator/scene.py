"""An API server with the CRDs, an operator under its own rights, and many stacks whose pods are played."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from e2e import assets
from tests.kube.cluster import ApiServer
from tests.kube.conftest import STACK_CRD
from tests.kube.kuberay import ray_pod, stack
from tests.kube.process import OperatorProcess
from tests.kube.rights import operator_user
from twinkle_operator.client import MERGE, Client
from twinkle_operator.resources import CLUSTERS, JOBS, PODS, POLICIES, STACKS, Manifest, Resource

T = TypeVar("T")
NAMESPACE = "bench"
AT_ONCE = 16
READS_EVERY_S = 0.2
DOCUMENT = {
    "schema": 1, "attempt": 1, "lineage": 1, "step": 12, "version": "1.12", "reward": 0.8, "checkpoint_step": 10,
    "queue": {"task": "train", "ready": 64, "required": 64, "summary": "64/64"},
    "tasks": [{"task": "train", "ready": 64, "required": 64, "is_ready": True, "waiting": 0, "reasons": []}],
    "partitions": {"alive": 1, "limit": 1, "oldest": 12, "newest": 12},
    "bytes": {"stored": 1, "capacity": None}, "ready": True, "reason": "",
}  # fmt: skip


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """Ready, with KubeRay's two CRDs and ours."""
    with ApiServer() as server:
        for name in ("rayclusters", "rayjobs"):
            server.install_crds(assets.kuberay() / "crd" / "bases" / f"ray.io_{name}.yaml")
        server.install_crds(STACK_CRD)
        server.kubectl("create", "namespace", NAMESPACE)
        server.kubectl("create", "serviceaccount", "default", "--namespace", NAMESPACE)
        yield server


@contextmanager
def operator(server: ApiServer, *arguments: str) -> Iterator[OperatorProcess]:
    """An operator of the whole cluster, ready."""
    with tempfile.TemporaryDirectory() as folder:
        user = operator_user(server, f"operator-{os.urandom(4).hex()}")
        process = OperatorProcess(user, Path(folder), *arguments).start()
        try:
            yield process.ready()
        finally:
            process.stop()


@contextmanager
def heads() -> Iterator[str]:
    """Where every head says that its queue is ready, and never anything else."""

    class Head(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(DOCUMENT).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # who asked has waited long enough
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Head)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def administrator(server: ApiServer) -> AsyncIterator[Client]:
    """A client that may do everything."""
    with mock.patch.dict(os.environ, KUBECONFIG=str(server.admin)):
        async with Client() as client:
            yield client


async def each(work: Callable[[T], Awaitable[Any]], things: Iterable[T]) -> None:
    """That work for all things, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(thing: T) -> None:
        async with gate:
            await work(thing)

    await asyncio.gather(*(one(thing) for thing in things))


def wide(name: str) -> Manifest:
    """A stack of five pods: the head, two samplers, two trainers."""
    groups = [
        {"name": "sampler", "role": "sampler", "engine": "torch", "mesh": {"dp": 2}},
        {"name": "trainer", "role": "trainer", "mesh": {"dp": 2}},
    ]
    run = {"experiment": "quickstart", "volume": {"claimName": "runs"}}
    return stack(name, NAMESPACE, deviceGroups=groups, run=run)


async def create(client: Client, names: Iterable[str]) -> None:
    """Make these stacks."""

    async def one(name: str) -> None:
        await client.call("POST", STACKS.path(NAMESPACE), wide(name))

    await each(one, names)


async def read_back(client: Client, resource: Resource, names: Iterable[str]) -> dict[str, Manifest]:
    """The objects of these names, once all are there."""
    wanted = set(names)
    while True:
        found = {
            each["metadata"]["name"]: each
            async for chunk, _ in client.list(resource, NAMESPACE)
            for each in chunk
            if each["metadata"]["name"] in wanted
        }
        if len(found) == len(wanted):
            return found
        await asyncio.sleep(READS_EVERY_S)


async def children(client: Client, names: list[str]) -> dict[str, Manifest]:
    """The RayClusters of these stacks, once they and the NetworkPolicies are there."""
    await read_back(client, POLICIES, names)
    return await read_back(client, CLUSTERS, names)


async def run(client: Client, clusters: dict[str, Manifest]) -> None:
    """Make the pods of these RayClusters, all ready, and wait for their RayJobs, which run then."""
    await each(lambda cluster: _pods(client, cluster), clusters.values())
    await read_back(client, JOBS, [f"{name}-1" for name in clusters])
    status = {"status": {"jobStatus": "RUNNING", "jobDeploymentStatus": "Running"}}

    async def running(name: str) -> None:
        await client.call("PATCH", JOBS.path(NAMESPACE, f"{name}-1", "status"), status, content=MERGE)

    await each(running, clusters)


async def _pods(client: Client, cluster: Manifest) -> None:
    await client.call(
        "PATCH",
        CLUSTERS.path(NAMESPACE, cluster["metadata"]["name"], "status"),
        {"status": {"state": "ready"}},
        content=MERGE,
    )
    for number, (group, node) in enumerate([("head", "head"), *[("sampler", "worker"), ("trainer", "worker")] * 2]):
        pod = ray_pod(cluster, group, node, f"{cluster['metadata']['name']}-{group}-{number}")
        await client.call("POST", PODS.path(NAMESPACE), pod)
        ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        path = PODS.path(NAMESPACE, pod["metadata"]["name"], "status")
        await client.call("PATCH", path, ready, content="application/strategic-merge-patch+json")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found, f"/proc/{pid}/status names no VmRSS"
    return int(found[1]) / 1024
