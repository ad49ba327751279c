"""Figures of our queue alone: the peer cannot wait without stopping everybody."""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks import quickstart as laptop
from benchmarks.queue.bench import Bench, at_most_or_echo
from benchmarks.table import Figure, median_at_least, median_at_most, shown

WAITERS = 64
CLIENTS = 1000
PROCESSES = 4
CYCLES = 10


def wake(bench: Bench) -> list[Figure]:
    """From the last field's put to the return of the get_meta that waited for it, in another process."""
    bench.without_peer()
    count, echoes, halves, tails = bench.pick(500, 50), [], [], []
    with bench.ours(rows=32 * count) as queue:
        (consumer,) = bench.workers(queue, 1)
        for step in range(bench.repetitions):
            echoes.append(bench.echo())
            consumer.order("waking.wake", step=step, count=count)
            puts = queue.call("waking.complete", step=step, count=count, pause_s=0.003)
            waits = consumer.result()
            latencies = [1000 * (got - put) for put, (asked, got) in zip(puts, waits, strict=True) if asked < put]
            if len(latencies) < 0.9 * count:
                raise AssertionError(f"only {len(latencies)} of {count} calls waited: the pause is too short")
            halves.append(float(np.percentile(latencies, 50)))
            tails.append(float(np.percentile(latencies, 99)))
            queue.call("clear", step=step)
    return [
        at_most_or_echo("wake-up: last put to the waiting get_meta's return, p50", halves, 0.5, echoes),
        at_most_or_echo("wake-up: last put to the waiting get_meta's return, p99", tails, 5.0, echoes),
    ]


def waiters(bench: Bench) -> list[Figure]:
    """Rounds of put and get_meta beside 64 waiting consumers of other tasks and steps, against rounds without them."""
    bench.without_peer()
    count, alone, crowded, ratios = bench.pick(1500, 100), [], [], []
    with bench.ours(rows=2 * 32 * count, partitions=4) as queue:
        sides = bench.workers(queue, PROCESSES)
        for number in range(bench.repetitions):
            here, elsewhere = 2 * number, 2 * number + 1
            queue.call("waking.occupy", step=elsewhere)
            alone.append(statistics.median(queue.call("waking.rounds", step=here, count=count)))
            for place, side in enumerate(sides):
                tasks = [f"task {place}/{each}" for each in range(WAITERS // PROCESSES)]
                side.call("waking.begin_waiting", tasks=tasks, step=here if place % 2 else elsewhere)
            crowded.append(statistics.median(queue.call("waking.rounds", step=here, count=count)))
            ratios.append(crowded[-1] / alone[-1])
            for step in (here, elsewhere):
                queue.call("clear", step=step)
            endings = [ending for side in sides for ending in side.call("waking.end_waiting")]
            if len(endings) != WAITERS or set(endings) != {"StepClearedError"}:
                raise AssertionError(f"the waits should have lasted until the steps were cleared, but ended: {endings}")
    return [
        shown("put and get_meta of 32 rows, p50, nobody waiting", alone, "ms"),
        shown(f"put and get_meta of 32 rows, p50, {WAITERS} waiting", crowded, "ms"),
        median_at_most(f"put and get_meta, {WAITERS} waiting consumers against none", ratios, 1.1, "x"),
    ]


def clients(bench: Bench) -> list[Figure]:
    """1,000 clients from 4 processes, 10 cycles of put, get and ack each."""
    bench.without_peer()
    share, served, slowest, middle = bench.pick(CLIENTS, 40) // PROCESSES, [], [], []
    with bench.ours(rows=CLIENTS * CYCLES, partitions=3) as queue:
        sides = bench.workers(queue, PROCESSES)
        for step in range(min(3, bench.repetitions)):
            start_at = bench.soon() + bench.pick(8, 1)
            for place, side in enumerate(sides):
                first = place * share * CYCLES
                order = {"step": step, "clients": share, "count": CYCLES, "first": first, "start_at": start_at}
                side.order("crowd.cycles", **order)
            results = [side.result() for side in sides]
            errors = [error for result in results for error in result["errors"]]
            put = {row: checksum for result in results for row, checksum in result["put"].items()}
            got = [row for result in results for row in result["got"]]
            if not errors and (len(got) != len(put) or dict(got) != put):
                raise AssertionError("the clients got other rows or other bytes than were put, or some twice")
            seconds = [each for result in results for each in result["seconds"]]
            served.append(len(seconds) if not errors else len(seconds) - 0.5)
            slowest.append(max(seconds))
            middle.append(statistics.median(seconds))
            queue.call("clear", step=step)
    whole = share * PROCESSES
    return [
        median_at_least(f"{whole} clients, {CYCLES} cycles each: clients that finished", served, whole, "clients"),
        shown(f"{whole} clients: the slowest", slowest, "s"),
        shown(f"{whole} clients: the median", middle, "s"),
    ]


def quickstart(bench: Bench) -> list[Figure]:
    """Time inside queue calls per step of the quickstart, one run."""
    bench.without_peer()
    bench.echo()
    name = "quickstart: time inside queue calls per step (median step)"
    return [median_at_most(name, [laptop.run(0).queue_ms], 4, "ms")]
