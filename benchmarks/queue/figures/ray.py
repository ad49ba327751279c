"""Our queue on Ray."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.queue.bench import Bench
from benchmarks.queue.sides import Side
from benchmarks.table import Figure, largest_at_most, median_at_least, median_at_most

ROUNDS = 4
SMALL = 1024
STORED = 72 * 1024
"""Large enough to go to a storage actor; smaller puts travel inside the message on any plane."""


def actor(bench: Bench) -> list[Figure]:
    """Start on a running Ray, and memory of each actor above an empty one."""
    bench.without_peer()
    seconds, above = [], []
    with _on_ray() as (side, empty_mb):
        for _ in range(bench.repetitions):
            result = side.call("on_ray.start", rows=64)
            seconds.append(result["start_s"])
            above.append(max(result["memory_mb"]) - empty_mb)
            side.call("on_ray.stop")
    return [
        median_at_most("start on a running Ray", seconds, 1.5, "s"),
        largest_at_most("memory of our largest actor above an empty one", above, 15, "MB"),
    ]


def plane(bench: Bench) -> list[Figure]:
    """The data plane `ray`: one-sample puts, a batch of 64 KB rows, coalescing."""
    bench.without_peer()
    ones: dict[int, list[float]] = {SMALL: [], STORED: []}
    speeds, gains = [], []
    with _on_ray() as (side, _):
        side.call("on_ray.start", rows=512, storage="ray")
        for number in range(bench.repetitions):
            step = 100 * (number + 1)
            for place, (size, medians) in enumerate(ones.items()):
                times = side.call("transfer.single_puts", step=step + place, count=bench.pick(200, 20), size=size)
                medians.append(statistics.median(times))
            rounds = side.call("on_ray.put_rounds", size=65536, first_step=step + 10, rounds=ROUNDS)
            speeds.append(statistics.median(rounds[1:]) / 1000)
            rates = side.call("on_ray.coalesced", step=step + 50, size=STORED)
            gains.append(rates["together_per_s"] / rates["alone_per_s"])
        side.call("on_ray.stop")
    return [
        median_at_most("plane `ray`: put of one sample of 1 KB, p50", ones[SMALL], 5, "ms"),
        median_at_most("plane `ray`: put of one sample of 72 KB, p50", ones[STORED], 5, "ms"),
        median_at_least("plane `ray`: put of 256 samples of 64 KB", speeds, 0.3, "GB/s"),
        median_at_least("plane `ray`: 32 threads' 72 KB puts, coalesced, against one by one", gains, 3, "x"),
    ]


@contextmanager
def _on_ray() -> Iterator[tuple[Side, float]]:
    """A process of ours with Ray running in it, and the MB of an empty actor."""
    side = Side("ours")
    try:
        yield side, side.call("on_ray.begin")
        side.call("on_ray.end")
    finally:
        side.close()
