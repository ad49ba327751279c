"""The counts of a queue as Prometheus metrics; whoever serves /metrics registers a `QueueCollector`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from transfer_queue.errors import TransferQueueError
from transfer_queue.ledger.explain import CODES
from transfer_queue.wire import MOST_TASKS, Stats, TaskStats

OTHER = "other"
"""The label of the tasks beyond the first 32, added up, and of what has no name of its own."""

Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)


class QueueCollector(Collector):
    """Asks `stats` (for instance `client.stats`) at each scrape; a queue that does not answer shows as up 0.

    Every label has few values: at most 32 tasks, five states, the codes of reasons, the kinds of requests and errors.
    """

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """One family per kind of count, labelled with task, state, reason or kind."""
        try:
            stats = self._stats()
        except TransferQueueError:
            yield GaugeMetricFamily("transfer_queue_up", "Whether the controller answers.", value=0)
            return
        yield GaugeMetricFamily("transfer_queue_up", "Whether the controller answers.", value=1)
        yield from _of_queue(stats)
        yield from _traffic(stats)
        yield from _of_tasks(bounded(stats.tasks))

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the queue."""
        return iter(())


def _of_queue(stats: Stats) -> Iterator[Metric]:
    gauges: tuple[tuple[str, str, float | None], ...] = (
        ("partitions", "Global steps that are alive.", len(stats.partitions)),
        ("partitions_limit", "Global steps that may be alive at once.", stats.partitions_limit),
        ("leases", "Leases that are alive.", stats.leases),
        ("oldest_lease_age_seconds", "Age of the oldest lease that is alive.", stats.oldest_lease_s),
        ("waiting_producers", "Puts that wait for room.", stats.waiting_producers),
        (
            "producer_wait_seconds",
            "How long the first of the puts that wait has waited.",
            stats.longest_producer_wait_s,
        ),
        ("idle_seconds", "Time since a row was put, given or given back.", stats.idle_s),
        ("stored_bytes", "Bytes of all values that are kept.", stats.stored_bytes),
        ("held_bytes", "Bytes that were freed and wait for a reader.", stats.held_bytes),
        ("oldest_reader_seconds", "For how long the reader that they wait for has read.", stats.held_s),
        ("capacity_bytes", "Bytes of values at which puts wait.", stats.capacity_bytes),
        ("journal_bytes", "Bytes of the journal on disk.", stats.journal_bytes),
    )
    for name, text, value in gauges:
        if value is not None:
            yield GaugeMetricFamily(f"transfer_queue_{name}", text, value=value)
    yield CounterMetricFamily("transfer_queue_samples_put", "Samples put since the start.", value=stats.rows_put_total)


def _traffic(stats: Stats) -> Iterator[Metric]:
    for name, text, counts in (
        ("requests", "Requests that arrived, by kind.", stats.requests),
        ("errors", "Requests that ended with an error, by its class.", stats.errors),
    ):
        family = CounterMetricFamily(f"transfer_queue_{name}", text, labels=["kind"])
        for kind, count in counts.items():
            family.add_metric([kind], count)
        yield family


def _of_tasks(tasks: dict[str, TaskStats]) -> Iterator[Metric]:
    yield _labelled(
        GaugeMetricFamily(
            "transfer_queue_samples", "Samples of the steps alive, as each task sees them.", labels=["task", "state"]
        ),
        {(task, state): rows for task, each in tasks.items() for state, rows in _states(each).items()},
    )
    yield _labelled(
        GaugeMetricFamily(
            "transfer_queue_not_ready_samples",
            "Samples that a task cannot have yet, by reason.",
            labels=["task", "reason"],
        ),
        {(task, reason): rows for task, each in tasks.items() for reason, rows in each.not_ready.items()},
    )
    gauges: tuple[tuple[str, str, Callable[[TaskStats], float]], ...] = (
        ("ready", "Whether a task's request could be served now.", lambda each: each.is_ready),
        ("required_samples", "Samples that a task's request needs together.", lambda each: each.needed),
        ("waiting_consumers", "Requests of a task that wait.", lambda each: each.waiting),
        ("consumer_wait_seconds", "How long the first of them has waited.", lambda each: each.longest_wait_s),
        ("sampler_lost", "Whether a task has lost its sampler and cannot be served.", lambda each: bool(each.lost)),
    )
    for name, text, of in gauges:
        family = GaugeMetricFamily(f"transfer_queue_{name}", text, labels=["task"])
        yield _labelled(family, {(task,): float(of(each)) for task, each in tasks.items()})
    yield _labelled(
        CounterMetricFamily(
            "transfer_queue_samples_consumed", "Samples that a task consumed since the start.", labels=["task"]
        ),
        {(task,): each.consumed_total for task, each in tasks.items()},
    )


def _labelled(family: Family, values: dict[tuple[str, ...], float]) -> Family:
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family


def _states(task: TaskStats) -> dict[str, int]:
    """Every sample that was put, under exactly one state."""
    return {
        "ready": task.ready,
        "leased": task.leased,
        "consumed": task.consumed,
        "dropped": sum(task.dropped.values()),
        "not_ready": sum(task.not_ready.values()),
    }


def bounded(tasks: dict[str, TaskStats]) -> dict[str, TaskStats]:
    """At most 32 tasks, those of `tasks=` (which come last) before others; the rest added up as "other"."""
    named = {task: each for task, each in list(tasks.items())[-MOST_TASKS:] if task != OTHER}
    rest = [each for task, each in tasks.items() if task not in named]
    known = {task: _known_reasons(each) for task, each in named.items()}
    return {**known, OTHER: _known_reasons(_sum(rest))} if rest else known


def _known_reasons(task: TaskStats) -> TaskStats:
    counts: dict[str, int] = {}
    for reason, rows in task.not_ready.items():
        name = reason if reason in CODES else OTHER
        counts[name] = counts.get(name, 0) + rows
    return msgspec.structs.replace(task, not_ready=counts)


def _sum(tasks: list[TaskStats]) -> TaskStats:
    """Several tasks as one: ready if all of them are, its wait the longest."""
    total = {
        name: sum(getattr(task, name) for task in tasks)
        for name in ("produced", "ready", "leased", "consumed", "waiting", "consumed_total", "needed")
    }
    not_ready: dict[str, int] = {}
    for task in tasks:
        for reason, rows in task.not_ready.items():
            not_ready[reason] = not_ready.get(reason, 0) + rows
    return TaskStats(
        **total,
        dropped={OTHER: sum(sum(task.dropped.values()) for task in tasks)},
        not_ready=not_ready,
        is_ready=all(task.is_ready for task in tasks),
        longest_wait_s=max(task.longest_wait_s for task in tasks),
        lost="; ".join(task.lost for task in tasks if task.lost),
    )
