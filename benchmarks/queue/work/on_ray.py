"""Our queue on Ray: memory above an empty actor, start, and the data plane `ray`."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.queue import payload
from benchmarks.queue.ours import require
from benchmarks.queue.work import transfer
from benchmarks.queue.work.empty import Empty
from benchmarks.queue.work.memory import SETTLE_S, actors, resident_mb
from benchmarks.queue.work.timing import timed
from benchmarks.queue.work.transfer import FIELD, SAMPLES
from transfer_queue import TransferQueueController

THREADS = 32
_handles: list[Any] = []


def begin(system: Any) -> float:
    """Start Ray and one actor in it; the MB of that empty actor."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    empty = ray.remote(num_cpus=0)(Empty).remote()
    ray.get(empty.ready.remote())
    time.sleep(SETTLE_S)
    _handles.append(empty)
    return resident_mb(list(actors()))


def start(system: Any, rows: int, partitions: int = 2, **options: Any) -> dict[str, Any]:
    """Start our queue on the Ray that runs: seconds until it answers, and the MB of each of its actors."""
    import ray

    require(options)
    before, began = actors(), time.perf_counter()
    handle = TransferQueueController.remote(global_batch_size=rows, num_global_batch=partitions, **options)
    system.attach(ray.get(handle.get_info.remote()))
    seconds = time.perf_counter() - began
    _handles.append(handle)
    time.sleep(SETTLE_S)
    return {"start_s": seconds, "memory_mb": [resident_mb([pid]) for pid in actors() if pid not in before]}


def stop(system: Any) -> None:
    """End the queue, not Ray."""
    import ray

    system.detach()
    handle = _handles.pop()
    ray.get(handle.stop.remote())
    ray.kill(handle)


def end(system: Any) -> None:
    """End Ray."""
    import ray

    ray.shutdown()


def put_rounds(system: Any, size: int, first_step: int, rounds: int) -> list[float]:
    """MB/s of putting 256 rows at once, round after round, each checked."""
    return transfer.put_rounds(system, system.info, size, first_step, rounds)


def coalesced(system: Any, step: int, size: int) -> dict[str, float]:
    """Rows per second of 256 one-row puts, one after the other and from 32 threads at once, all checked."""
    values = payload.rows(step * SAMPLES, 2 * SAMPLES, size)
    data = [system.prepared({FIELD: values[row : row + 1]}) for row in range(2 * SAMPLES)]

    def put_share(thread: int) -> None:
        for row in range(SAMPLES + thread, 2 * SAMPLES, THREADS):
            system.put(data[row], step)

    def together() -> None:
        threads = [threading.Thread(target=put_share, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    alone_ms, _ = timed(lambda: [system.put(each, step) for each in data[:SAMPLES]])
    together_ms, _ = timed(together)
    meta = system.get_meta([FIELD], 2 * SAMPLES, step, "train")
    payload.check(system.get_data(meta)[FIELD], payload.checksums(values))
    system.done(meta)
    system.clear(step)
    return {"alone_per_s": 1000 * SAMPLES / alone_ms, "together_per_s": 1000 * SAMPLES / together_ms}
