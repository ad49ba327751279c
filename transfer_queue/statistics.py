"""The counts of a queue, for `client.stats()` and the metrics."""

from __future__ import annotations

from collections import Counter

from transfer_queue import wire
from transfer_queue.ledger import Ledger
from transfer_queue.ledger.counts import count
from transfer_queue.ledger.explain import NEVER_ASKED, explain, not_ready
from transfer_queue.waiting import Line


def gather(ledger: Ledger, line: Line, waiting_producers: int, stored_bytes: int) -> wire.Stats:
    """Everything that a dashboard shows, of this moment."""
    partitions = ledger.steps.in_order()
    names = {*ledger.shape.tasks, *ledger.last_wants, *(name for partition in partitions for name in partition.tasks)}
    return wire.Stats(
        {name: _of_task(ledger, line, name) for name in sorted(names)},
        [partition.step for partition in partitions],
        len(ledger.leases.live),
        waiting_producers,
        stored_bytes,
        ledger.rows_put,
    )


def _of_task(ledger: Ledger, line: Line, task: str) -> wire.TaskStats:
    partitions = ledger.steps.in_order()
    counts = [count(ledger, partition, task) for partition in partitions]
    dropped: Counter[str] = Counter()
    for partition in partitions:
        dropped.update(partition.task(task).dropped)
    waiting = line.of_task(task)
    want = waiting[0].want if waiting else ledger.last_wants.get(task)
    ready = sum(each.ready for each in counts)
    idle = sum(each.not_ready for each in counts)
    reasons = not_ready(ledger, want) if want else {NEVER_ASKED: idle} if idle else {}
    return wire.TaskStats(
        produced=sum(each.produced for each in counts),
        ready=ready,
        leased=sum(each.leased for each in counts),
        consumed=sum(each.consumed for each in counts),
        dropped=dict(dropped),
        not_ready=reasons,
        is_ready=want is not None and explain(ledger, want).ready >= want.needed,
        waiting=len(waiting),
        consumed_total=ledger.rows_consumed[task],
    )
