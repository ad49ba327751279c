"""Whether producers and consumers can make progress: the decision behind /readyz."""

from __future__ import annotations

from transfer_queue.wire import Stats

STALL_S = 30.0
"""How long nothing may have moved before a queue that is full and idle counts as stuck.

A consumer that works under a lease is seen to work; one that took its rows without a lease is not, so a full queue
is given this long before it is called stuck.
"""


def hindrance(stats: Stats, stall_s: float = STALL_S) -> str | None:
    """None while rows can move; otherwise one sentence that says what stands in their way.

    Two things do, beside a controller that does not answer: a task whose sampler is lost, since none of its requests
    can be served; and a standstill, which nobody inside the queue will end: a put waits for room, no task's request
    can be served, no lease is alive, and nothing has moved for `stall_s` seconds. Rows that are merely not produced
    yet, or consumers that are slow under a lease, are ordinary waiting.
    """
    for task, each in stats.tasks.items():
        if each.lost:
            return f"task {task!r} cannot be served: {each.lost}"
    served = any(each.is_ready for each in stats.tasks.values())
    if stats.waiting_producers and not served and not stats.leases and stats.idle_s >= stall_s:
        return _standstill(stats)
    return None


def _standstill(stats: Stats) -> str:
    asking = [
        f"{task!r} (needs {each.needed}, {each.ready} ready)" for task, each in stats.tasks.items() if each.needed
    ]
    consumers = f"no request of {', '.join(asking[:8])} can be served" if asking else "no consumer has ever asked"
    fullness = f"{len(stats.partitions)} of {stats.partitions_limit} partitions are alive"
    if stats.capacity_bytes is not None:
        fullness += f", {stats.stored_bytes:,} of {stats.capacity_bytes:,} bytes are taken"
    return (
        f"nothing has moved for {stats.idle_s:.0f} s and nothing can: {stats.waiting_producers} puts wait for room, "
        f"{fullness}, {consumers}, and nobody holds a lease; clear a step, or start the missing producer or consumer"
    )
