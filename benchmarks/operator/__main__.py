"""``make bench-operator``: what the operator costs, to ``benchmarks/results/operator``.

python -m benchmarks.operator [imports | many | steady | change ...]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.operator import scene
from benchmarks.table import Figure, largest_at_most, less, median_at_most, run_parts, shown, times_at_least
from tests.kube.process import OperatorProcess
from twinkle_operator.client import MERGE, Client
from twinkle_operator.resources import POLICIES, STACKS

STACKS_COUNT, CREATE_LIMIT_S, RSS_LIMIT_MB = 500, 45.0, 120.0
RUNNING, QUIET_S = 20, 60.0
CHANGES, CHANGE_LIMIT_MS = 40, 50.0
IMPORTS, IMPORT_LIMIT = 7, 1.5
HEAVY = ("torch", "ray", "transformers", "hydra", "twinkle", "transfer_queue")
IMPORT = """
import sys, time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began, *(name for name in {heavy} if name in sys.modules))
"""
NOBODY = ("--status-address", "http://127.0.0.1:9")


def imports() -> list[Figure]:
    """`python -m twinkle_operator` beside `import kopf`, each in a new interpreter, in turns."""
    ours, kopfs, loaded = [], [], set()
    for _ in range(IMPORTS):
        for module, values in (("twinkle_operator.main", ours), ("kopf", kopfs)):
            code = IMPORT.format(module=module, heavy=HEAVY)
            said = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout.split()
            values.append(1000 * float(said[0]))
            loaded |= set(said[1:])
    figure = times_at_least("import twinkle_operator (peer: import kopf)", ours, kopfs, 1 / IMPORT_LIMIT, "ms", less)
    return [figure, largest_at_most("heavy packages loaded by it", [float(len(loaded))], 0.0, "packages")]


def many() -> list[Figure]:
    """500 stacks at once."""
    with scene.api_server() as server, scene.operator(server, *NOBODY) as process:

        async def measure() -> list[Figure]:
            names = [f"s{number}" for number in range(STACKS_COUNT)]
            empty = scene.rss_mb(process.pid)
            async with scene.administrator(server) as client:
                began = time.perf_counter()
                await scene.create(client, names)
                created = time.perf_counter() - began
                clusters = await scene.children(client, names)
                applied = time.perf_counter() - began
                began = time.perf_counter()
                await scene.run(client, clusters)
                ran = time.perf_counter() - began
            await asyncio.sleep(5)
            rss = scene.rss_mb(process.pid)
            count = f"{STACKS_COUNT} stacks"
            return [
                largest_at_most(f"{count}: create to children read back", [applied], CREATE_LIMIT_S, "s"),
                shown(f"{count}: of these until the last was created", [created], "s"),
                shown(f"{count}: 5 pods each made ready, to every RayJob read back", [ran], "s"),
                largest_at_most(f"RSS with {count} of 5 pods", [rss], RSS_LIMIT_MB, "MB"),
                shown("RSS with no stack", [empty], "MB"),
            ]

        return asyncio.run(measure())


def steady() -> list[Figure]:
    """20 stacks that run and whose queues stand still."""
    with (
        scene.heads() as address,
        scene.api_server() as server,
        scene.operator(server, "--status-address", address) as process,
    ):
        return asyncio.run(_steady(server, process))


async def _steady(server: scene.ApiServer, process: OperatorProcess) -> list[Figure]:
    names = [f"s{number}" for number in range(RUNNING)]
    async with scene.administrator(server) as client:
        await scene.create(client, names)
        await scene.run(client, await scene.children(client, names))
        while process.metrics().count("trainingstack_queue_ready{") < RUNNING:
            await asyncio.sleep(0.5)
        await asyncio.sleep(12)  # what the polls said first is written by now
        before = _writes(process)
        await asyncio.sleep(QUIET_S)
        figure = largest_at_most(
            f"writes in {QUIET_S:g} s with {RUNNING} running stacks, polls on",
            [_writes(process) - before],
            0.0,
            "writes",
        )
        return [figure, shown(f"RSS with {RUNNING} running stacks", [scene.rss_mb(process.pid)], "MB")]


def _writes(process: OperatorProcess) -> float:
    calls = [
        process.metric(f'trainingstack_api_calls_total{{method="{method}"}}') for method in ("POST", "PATCH", "DELETE")
    ]
    return sum(call or 0.0 for call in calls)


def change() -> list[Figure]:
    """One change of a spec, until the child that it concerns is applied."""
    with scene.api_server() as server, scene.operator(server, *NOBODY):

        async def measure() -> list[Figure]:
            async with scene.administrator(server) as client:
                await scene.create(client, ["s"])
                await scene.children(client, ["s"])
                await asyncio.sleep(2)
                values = [await _changed(client, 1024 + number) for number in range(CHANGES)]
            return [median_at_most("a change of a spec to its child applied", values, CHANGE_LIMIT_MS, "ms")]

        return asyncio.run(measure())


async def _changed(client: Client, port: int) -> float:
    spec = {"spec": {"networkPolicy": {"egress": [{"ports": [{"port": port}]}]}}}
    began = time.perf_counter()
    await client.call("PATCH", STACKS.path(scene.NAMESPACE, "s"), spec, content=MERGE)
    while True:
        policy = await client.get(POLICIES, scene.NAMESPACE, "s")
        if any(rule.get("ports", [{}])[0].get("port") == port for rule in policy["spec"].get("egress", [])):
            passed = 1000 * (time.perf_counter() - began)
            await asyncio.sleep(0.3)
            return passed


PARTS: dict[str, Callable[[], list[Figure]]] = {"imports": imports, "many": many, "steady": steady, "change": change}


def main(names: list[str]) -> int:
    """Measure, write, print; 1 when a figure was missed, 2 for a name that is none."""
    return run_parts("operator", "The operator", PARTS, names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
