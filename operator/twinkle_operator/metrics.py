"""What the operator tells Prometheus. Series of stacks are made from the cache at each scrape: none outlives its stack.

trainingstack_queue_ready{namespace,name}                     1: the queue has what was asked for; 0: it has not
trainingstack_step{namespace,name}                            optimizer steps done, as last seen
trainingstack_condition{namespace,name,type,status,reason}    1, one series for each condition
trainingstack_reconcile_seconds                               histogram; one pass over a stack
trainingstack_reconcile_errors_total{error}                   passes that failed, by kind of error
trainingstack_api_calls_total{method}                         calls to the API server that are not watches
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from twinkle_operator.cache import Cache
from twinkle_operator.observed import Stack

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STACK = ("namespace", "name")


class Metrics(Collector):
    """All series of one operator, in a registry of their own."""

    def __init__(self, cache: Cache) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "trainingstack_reconcile_seconds",
            "Seconds of one pass over a stack.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.errors = Counter(
            "trainingstack_reconcile_errors", "Passes that failed.", ["error"], registry=self.registry
        )
        self.calls = Counter(
            "trainingstack_api_calls",
            "Calls to the API server that are no watches.",
            ["method"],
            registry=self.registry,
        )
        self._cache = cache
        self.registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The series of all stacks, as their status has it."""
        ready = GaugeMetricFamily(
            "trainingstack_queue_ready", "1 if the queue has the rows that were asked for, else 0.", labels=STACK
        )
        step = GaugeMetricFamily("trainingstack_step", "Optimizer steps done, as last seen.", labels=STACK)
        conditions = GaugeMetricFamily(
            "trainingstack_condition",
            "1 for the status that a condition has.",
            labels=(*STACK, "type", "status", "reason"),
        )
        for stack in self._cache.stacks():
            _add(stack, ready, conditions)
            if stack.status.progress is not None and stack.status.progress.step is not None:
                step.add_metric((stack.namespace, stack.name), stack.status.progress.step)
        yield ready
        yield step
        yield conditions


def _add(stack: Stack, ready: GaugeMetricFamily, conditions: GaugeMetricFamily) -> None:
    name = (stack.namespace, stack.name)
    for condition in stack.status.conditions:
        conditions.add_metric((*name, condition.type, condition.status, condition.reason), 1)
        if condition.type == "QueueReady" and condition.status != "Unknown":
            ready.add_metric(name, float(condition.status == "True"))
