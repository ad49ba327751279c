"""The counts of a queue as Prometheus metrics; whoever serves /metrics registers a `QueueCollector`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from transfer_queue.errors import TransferQueueError
from transfer_queue.wire import Stats, TaskStats


class QueueCollector(Collector):
    """Asks `stats` (for instance `client.stats`) at each scrape; a queue that does not answer shows as up 0."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """One family per kind of count, labelled with task, state or reason."""
        try:
            stats = self._stats()
        except TransferQueueError:
            yield GaugeMetricFamily("transfer_queue_up", "Whether the controller answers.", value=0)
            return
        yield GaugeMetricFamily("transfer_queue_up", "Whether the controller answers.", value=1)
        yield from _of_queue(stats)
        yield from _of_tasks(stats.tasks)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the queue."""
        return iter(())


def _of_queue(stats: Stats) -> Iterator[Metric]:
    gauges = (
        ("partitions", "Global steps that are alive.", len(stats.partitions)),
        ("leases", "Leases that are alive.", stats.leases),
        ("waiting_producers", "Puts that wait for a partition to be cleared.", stats.waiting_producers),
        ("stored_bytes", "Bytes of all values that are kept.", stats.stored_bytes),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"transfer_queue_{name}", text, value=value)
    yield CounterMetricFamily("transfer_queue_samples_put", "Samples put since the start.", value=stats.rows_put_total)


def _of_tasks(tasks: dict[str, TaskStats]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "transfer_queue_samples", "Samples of the steps alive, as each task sees them.", labels=["task", "state"]
    )
    reasons = GaugeMetricFamily(
        "transfer_queue_not_ready_samples", "Samples that a task cannot have yet, by reason.", labels=["task", "reason"]
    )
    ready = GaugeMetricFamily("transfer_queue_ready", "Whether a task's request could be served now.", labels=["task"])
    waiting = GaugeMetricFamily("transfer_queue_waiting_consumers", "Requests of a task that wait.", labels=["task"])
    consumed = CounterMetricFamily(
        "transfer_queue_samples_consumed", "Samples that a task consumed since the start.", labels=["task"]
    )
    for task, each in tasks.items():
        counts = {
            "ready": each.ready,
            "leased": each.leased,
            "consumed": each.consumed,
            "dropped": sum(each.dropped.values()),
            "not_ready": sum(each.not_ready.values()),
        }
        for state, rows in counts.items():
            states.add_metric([task, state], rows)
        for reason, rows in each.not_ready.items():
            reasons.add_metric([task, reason], rows)
        ready.add_metric([task], float(each.is_ready))
        waiting.add_metric([task], each.waiting)
        consumed.add_metric([task], each.consumed_total)
    yield from (states, reasons, ready, waiting, consumed)
