"""Every metric and label that a dashboard or an alert names is really exported by somebody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric

from charts.dashboards import DASHBOARDS, text
from tests.charts.render import OPERATOR
from transfer_queue.metrics import QueueCollector
from transfer_queue.wire import Stats, TaskStats
from twinkle.metrics import TrainingMetrics
from twinkle_operator.cache import Cache
from twinkle_operator.metrics import Metrics
from twinkle_operator.resources import STACKS

OF_TARGET = {"namespace", "stack", "pod", "job", "instance"}
"""Labels that the monitors add to what the queue and the run export."""

IN_BRACES = re.compile(r'\{((?:[^"}]|"[^"]*")*)\}')
GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
KEPT = re.compile(r"\bby\s*\(([^)]*)\)")
OPERATORS = {"or", "and", "unless", "offset"}


STATUS = {
    "progress": {"step": 1},
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "Because",
            "message": "It is so.",
        }
        for kind in ("Ready", "QueueReady")
    ],
}


@cache
def exported() -> dict[str, set[str]]:
    """The labels of every series that one of the three exports, by its name."""
    task = TaskStats(8, 4, 2, 1, {"field": 1}, {"stale": 1}, True, 0, 0)
    stats = Stats({"train": task}, [0], 0, 0, 1, 1, requests={"put": 1}, errors={"GroupError": 1})
    stats = msgspec.structs.replace(stats, capacity_bytes=1, journal_bytes=1)
    registry = CollectorRegistry()
    TrainingMetrics(registry)
    of_heads = _series([*QueueCollector(lambda: stats).collect(), *registry.collect()])
    return {name: labels | OF_TARGET for name, labels in of_heads.items()} | _series(_operators().collect())


def _operators() -> CollectorRegistry:
    """What an operator with one stack exports."""
    seen = Cache()
    metadata = {"name": "s", "namespace": "a", "uid": "1", "resourceVersion": "1", "generation": 1}
    seen.seen(STACKS, {"metadata": metadata, "spec": {}, "status": STATUS})
    metrics = Metrics(seen)
    metrics.errors.labels("Conflict")
    metrics.calls.labels("GET")
    return metrics.registry


def _series(families: Iterable[Metric]) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def named(promql: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that an expression names."""
    labels = {label for match in IN_BRACES.findall(promql) for label in re.findall(r"(\w+)\s*(?:=|!)", match)}
    labels |= {label.strip() for match in GROUPED.findall(promql) for label in match.split(",")}
    rest = GROUPED.sub(" ", re.sub(r"\[[^]]*\]", " ", IN_BRACES.sub(" ", promql)))
    words = {match[1] for match in re.finditer(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", rest)}
    return words - OPERATORS, labels


def expressions() -> set[str]:
    groups = yaml.safe_load((OPERATOR / "files" / "alerts.yaml").read_text())["groups"]
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = [query.promql for _, each, _ in DASHBOARDS.values() for panel in each for query in panel.queries]
    choices = [choice.values for *_, each in DASHBOARDS.values() for choice in each]
    return {*alerts, *panels, *(re.sub(r"label_values\((.*), (\w+)\)", r"max by (\2) (\1)", each) for each in choices)}


def test_an_expression_is_read_whole() -> None:
    promql = 'sum by (le, a) (rate(x_total{b="c{}",d=~"e"}[5m])) unless on (f) y offset 1h or vector(0) == 1e3'

    assert named(promql) == ({"x_total", "y"}, {"le", "a", "b", "d", "f"})


@pytest.mark.parametrize("promql", sorted(expressions()))
def test_what_is_asked_for_is_exported(promql: str) -> None:
    series = exported()
    metrics, labels = named(promql)

    assert metrics
    assert metrics <= series.keys()
    assert labels <= set.union(*(series[name] for name in metrics))


def test_legends_name_labels_that_the_query_keeps() -> None:
    for _, panels, _ in DASHBOARDS.values():
        for panel in panels:
            for query in panel.queries:
                kept = {label.strip() for match in KEPT.findall(query.promql) for label in match.split(",")}
                assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= kept, panel.title


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    cells = [
        (x, y)
        for panel in json.loads(text(name))["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
