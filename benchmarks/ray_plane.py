"""Data plane `ray` on one node: `python -m benchmarks.ray_plane`.

Puts of one sample, puts of 256 rows of 64 KB and reading them, and small puts of many callers at once: together in few
calls of the storage actor, as they travel, and each in a call of its own. The two take turns.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray

from transfer_queue import TransferQueueClient, TransferQueueController
from transfer_queue.storage import sending

SMALL = 80 << 10
"""What is smaller than 64 KiB never leaves the controller."""
CALLERS, PUTS = (16, 64), 384
REPEATS = 5
SINGLY = {"CALLS": 64, "CALL_BYTES": 0, "BLOCK_BYTES": 0}


def rows(count: int, size: int) -> Any:
    return np.random.default_rng(0).integers(0, 255, (count, size), dtype=np.uint8)


def times(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


@contextmanager
def one_call_each() -> Iterator[None]:
    """Let every put travel in a call of its own, as many at once as there are callers."""
    before = {name: getattr(sending, name) for name in SINGLY}
    for name, value in SINGLY.items():
        setattr(sending, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(sending, name, value)


def rate(info: dict[str, Any], callers: int) -> float:
    """Puts of one small sample a second, from that many threads of one client."""
    small = rows(1, SMALL)
    with TransferQueueClient("rate", info) as client, ThreadPoolExecutor(callers) as threads:
        list(threads.map(lambda _: client.put({"x": small}, global_step=0), range(callers)))
        took = times(lambda: list(threads.map(lambda _: client.put({"x": small}, global_step=0), range(PUTS))), 1)[0]
        client.clear(0)
    return PUTS / took


def main() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    controller = TransferQueueController.remote(global_batch_size=8192, num_global_batch=4, storage="ray")
    info = ray.get(controller.get_info.remote())
    with TransferQueueClient("bench", info) as client:
        for size in (SMALL, 1 << 20):
            one = rows(1, size)
            took = statistics.median(times(lambda one=one: client.put({"x": one}, global_step=1), 100))
            print(f"one-sample put of {size >> 10} KB, p50: {took * 1e3:.2f} ms")
        many = rows(256, 1 << 16)
        took = statistics.median(times(lambda: (client.put({"x": many}, global_step=2), client.clear(2)), 15))
        print(f"put of 256 x 64 KB, median: {many.nbytes / took / 1e9:.2f} GB/s")
        meta = client.put({"x": many}, global_step=2)
        took = statistics.median(times(lambda: client.get_data(meta), 15))
        print(f"get_data of 256 x 64 KB, median: {many.nbytes / took / 1e9:.2f} GB/s")
    for callers in CALLERS:
        together, apart = [], []
        for _ in range(REPEATS):
            together.append(rate(info, callers))
            with one_call_each():
                apart.append(rate(info, callers))
        ratio = statistics.median(a / b for a, b in zip(together, apart, strict=True))
        print(
            f"puts of {SMALL >> 10} KB from {callers} threads: {statistics.median(together):.0f}/s together, "
            f"{statistics.median(apart):.0f}/s in calls of their own, ratio {ratio:.2f}"
        )
    ray.get(controller.stop.remote())
    ray.shutdown()


if __name__ == "__main__":
    main()
