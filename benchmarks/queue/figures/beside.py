"""Figures that are measured beside the peer, repetition by repetition in turn."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

from benchmarks.queue.bench import Bench, Queue, at_most_or_echo
from benchmarks.queue.sides import Side
from benchmarks.table import Figure, beside, less, median_at_most, more, shown, times_at_least

SAMPLES = 256
GROUP = 8
SAMPLERS = {"Sequential": ("SequentialSampler", 1), "GRPO(n=8)": ("GRPOSampler", 1), "GRPO+DP(2)": ("GRPOSampler", 2)}
SINGLE_BYTES = 1024
WARM_ROUND = 3
WARM_UP = 128


def start(bench: Bench) -> list[Figure]:
    """Start without Ray and memory of an empty queue; the peer cannot do without Ray."""
    bench.without_peer()
    ours, peer = [], []
    for _ in range(bench.repetitions):
        for system, work, results in (("ours", "memory.start_alone", ours), ("peer", "memory.start_peer", peer)):
            side = Side(system)
            try:
                results.append(side.call(work))
            finally:
                side.close()
    started = median_at_most("start without Ray", [each["start_s"] for each in ours], 0.5, "s")
    memory = median_at_most(
        "memory of an empty queue, controller and storage (RSS)", [r["memory_mb"] for r in ours], 60, "MB"
    )
    shared = shown("the same, shared pages counted once (PSS)", [each["shared_mb"] for each in ours], "MB")
    ray = Figure("Ray, which the peer's start needs first", [], "s", "-", None, True, [r["ray_s"] for r in peer])
    return [
        beside(started, [each["start_s"] for each in peer], less),
        beside(memory, [each["memory_mb"] for each in peer], less),
        beside(shared, [each["shared_mb"] for each in peer], less),
        ray,
    ]


def get_meta(bench: Bench) -> list[Figure]:
    """get_meta(32) at 1e3 to 1e6 rows for each sampler."""
    sizes = [1000, 10_000] if bench.quick else [1000, 10_000, 100_000, 1_000_000]
    echoes, ours, peer = _get_metas(bench, sizes)
    figures = []
    for sampler, rows in ours:
        name = f"get_meta(32), {sampler}, {_short(rows)} rows, p50"
        figure = at_most_or_echo(name, ours[sampler, rows], 0.3, echoes)
        figures.append(beside(figure, peer[sampler, rows], less))
    for sampler in SAMPLERS:
        name = f"get_meta(32), {sampler}, {_short(sizes[-1])} rows against {_short(sizes[0])}"
        pairs = zip(ours[sampler, sizes[-1]], ours[sampler, sizes[0]], strict=True)
        figures.append(median_at_most(name, [large / small for large, small in pairs], 1.5, "x"))
    return figures


Medians = dict[tuple[str, int], list[float]]


def _get_metas(bench: Bench, sizes: list[int]) -> tuple[list[float], Medians, Medians]:
    """Echoes, and medians by sampler and rows, of us and of the peer; queues of all sizes stand side by side."""
    tasks = {f"{sampler}-{number}": SAMPLERS[sampler][0] for number in range(bench.repetitions) for sampler in SAMPLERS}
    ours: Medians = {(sampler, rows): [] for sampler in SAMPLERS for rows in sizes}
    peer: Medians = {key: [] for key in ours}
    echoes, theirs = [], bench.peer()
    with ExitStack() as stack:
        queues = {rows: stack.enter_context(bench.ours(rows=rows, samples=GROUP, samplers=tasks)) for rows in sizes}
        for rows, queue in queues.items():
            for each in (queue, theirs):
                each.call("scattered.fill", rows=rows, step=rows)
        for number in range(bench.repetitions):
            echoes.append(bench.echo())
            for sampler, rows in ours:
                name, ranks = SAMPLERS[sampler]
                order = {"rows": rows, "step": rows, "task": f"{sampler}-{number}", "ranks": ranks}
                order["samples"] = 1 if name == "SequentialSampler" else GROUP
                ours[sampler, rows].append(
                    queues[rows].call("scattered.get_metas", **order, rounds=20, calls=10)["p50"]
                )
                theirs.call("use_sampler", name=name, samples=GROUP)
                count = {"rounds": 5 if rows <= 10_000 else 1, "calls": 4 if rows >= 1_000_000 else 10}
                peer[sampler, rows].append(theirs.call("scattered.get_metas", **order, **count)["p50"])
    theirs.call("use_sampler", name="SequentialSampler", samples=1)
    for rows in sizes:
        theirs.call("clear", step=rows)
    return echoes, ours, peer


def _short(rows: int) -> str:
    return f"{rows:.0e}".replace("e+0", "e")


def put_one(bench: Bench) -> list[Figure]:
    """Put of one row of 1 KB."""
    echoes, ours, peer, count = [], [], [], bench.pick(500, 50)
    with bench.ours(rows=count) as queue:
        for number in range(bench.repetitions):
            echoes.append(bench.echo())
            for each, medians in ((queue, ours), (bench.peer(), peer)):
                times = each.call("transfer.single_puts", step=number, count=count, size=SINGLE_BYTES)
                medians.append(statistics.median(times))
    return [beside(at_most_or_echo("put of one sample of 1 KB, p50", ours, 0.20, echoes), peer, less)]


def stream(bench: Bench) -> list[Figure]:
    """One-sample producers, 1 and 4 processes, to a consumer of batches of 32."""
    figures = []
    counts = {"ours": bench.pick(8192, 512), "peer": bench.pick(512, 128)}
    with bench.ours(rows=counts["ours"]) as queue:
        for producers in (1, 4):
            results: dict[str, list[float]] = {"ours": [], "peer": []}
            for each in (queue, bench.peer()):
                streamed(bench, each, producers, 10 * producers - 1, WARM_UP)
            for number in range(bench.repetitions):
                for each in (queue, bench.peer()):
                    system = each.owner.system
                    results[system].append(streamed(bench, each, producers, 10 * producers + number, counts[system]))
            name = f"one-sample producers ({producers}) to a batch-32 consumer, 1 KB"
            figures.append(times_at_least(name, results["ours"], results["peer"], 25, "items/s", more))
    return figures


def streamed(bench: Bench, queue: Queue, producers: int, step: int, count: int) -> float:
    """Rows per second from `producers` processes through the queue to its owner; every byte is compared."""
    sides, share = bench.workers(queue, producers), count // producers
    order = {"step": step, "size": SINGLE_BYTES, "start_at": bench.soon()}
    for number, side in enumerate(sides):
        side.order("transfer.produce", first=number * share, count=share, **order)
    consumed = queue.call("transfer.consume", step=step, count=count, batch=32, start_at=order["start_at"])
    put: dict[str, int] = {}
    for side in sides:
        put.update(side.result())
    if put != consumed["checksums"]:
        raise AssertionError(f"{queue.owner.system}: the consumer had other bytes than the producers put")
    return float(consumed["per_s"])


def put(bench: Bench) -> list[Figure]:
    """Put of 256 rows at once, warm (from the fourth round of a client on) and cold (its first)."""
    rounds = WARM_ROUND + bench.pick(4, 1)
    return _transfer(
        bench, "put of 256 samples", "transfer.put_rounds", ((1024, 10.0), (65536, 5.0), (2**20, 5.0)), rounds
    )


def get_data(bench: Bench) -> list[Figure]:
    """get_data and a sum over every byte, of 256 rows put one at a time, shuffled."""
    name, targets = "get_data and sum, put one at a time, shuffled", ((1024, 10.0), (65536, 10.0), (2**20, 6.0))
    return _transfer(bench, name, "transfer.fetches", targets, bench.pick(6, 2))


def _transfer(bench: Bench, name: str, work: str, targets: tuple[tuple[int, float], ...], rounds: int) -> list[Figure]:
    figures = []
    cold = WARM_ROUND if work == "transfer.put_rounds" else 0
    for size, limit in targets[: bench.pick(3, 2)]:
        speeds: dict[str, list[list[float]]] = {"ours": [], "peer": []}
        with bench.ours(rows=SAMPLES) as queue:
            for number in range(bench.repetitions):
                for each in (queue, bench.peer()):
                    step = (number + 1) * 100
                    order: dict[str, Any] = {"size": size, "step": step, "times": rounds}
                    if cold:
                        order = {"size": size, "first_step": step, "rounds": rounds, "info": each.info}
                    speeds[each.owner.system].append(each.call(work, **order))
        ours, peer = ([statistics.median(each[cold:]) for each in speeds[system]] for system in ("ours", "peer"))
        label = f"{name}, {size // 1024} KB" if size < 2**20 else f"{name}, 1 MB"
        figures.append(times_at_least(label, ours, peer, limit, "MB/s", more))
        if cold:
            ours, peer = ([each[0] for each in speeds[system]] for system in ("ours", "peer"))
            figures.append(beside(shown(f"{label}, cold: a client's first", ours, "MB/s"), peer, more))
    return figures
