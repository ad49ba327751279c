"""The counts of a queue, for `client.stats()` and the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from transfer_queue import wire
from transfer_queue.ledger import Ledger
from transfer_queue.ledger.counts import count
from transfer_queue.ledger.explain import NEVER_ASKED, not_ready, ready_rows
from transfer_queue.ledger.peek import task_names
from transfer_queue.storage.segments import Segments
from transfer_queue.traffic import Traffic
from transfer_queue.waiting import Line, Producer


def gather(
    ledger: Ledger,
    line: Line,
    producers: Sequence[Producer],
    traffic: Traffic,
    *,
    lost: Callable[[str], str],
    stored_bytes: int,
    capacity_bytes: int | None = None,
    journal_bytes: int | None = None,
    segments: Segments,
) -> wire.Stats:
    """Everything that a dashboard shows, of this moment; `lost` says of a task what became of its sampler."""
    now, leases, holder = ledger.clock(), ledger.leases.live.values(), segments.holder()
    return wire.Stats(
        {name: _of_task(ledger, line, name, now, lost(name)) for name in task_names(ledger)},
        [partition.step for partition in ledger.steps.in_order()],
        len(leases),
        len(producers),
        stored_bytes,
        ledger.rows_put,
        ledger.shape.num_global_batch,
        max((now - lease.taken_at for lease in leases), default=0.0),
        max((now - producer.since for producer in producers), default=0.0),
        traffic.idle_s,
        dict(traffic.requests),
        dict(traffic.errors),
        capacity_bytes,
        journal_bytes,
        segments.held_bytes,
        holder.name if holder else "",
        now - holder.since if holder else 0.0,
    )


def _of_task(ledger: Ledger, line: Line, task: str, now: float, lost: str) -> wire.TaskStats:
    partitions = ledger.steps.in_order()
    counts = [count(ledger, partition, task) for partition in partitions]
    dropped: Counter[str] = Counter()
    for partition in partitions:
        dropped.update(partition.task(task).dropped)
    waiting = line.of_task(task)
    want = waiting[0].want if waiting else ledger.last_wants.get(task)
    idle = sum(each.not_ready for each in counts)
    reasons = not_ready(ledger, want) if want else {NEVER_ASKED: idle} if idle else {}
    return wire.TaskStats(
        produced=sum(each.produced for each in counts),
        ready=sum(each.ready for each in counts),
        leased=sum(each.leased for each in counts),
        consumed=sum(each.consumed for each in counts),
        dropped=dict(dropped),
        not_ready=reasons,
        is_ready=want is not None and not lost and ready_rows(ledger, want) >= want.needed,
        waiting=len(waiting),
        consumed_total=ledger.rows_consumed[task],
        needed=want.needed if want is not None else 0,
        longest_wait_s=max((now - consumer.since for consumer in waiting), default=0.0),
        lost=lost,
    )
