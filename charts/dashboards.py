"""Grafana's dashboards, from a list of their panels: overview (the operator and all stacks) and run (one stack)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from charts.panels import OVERVIEW, RUN, Panel, Query

SOURCE = {"type": "prometheus", "uid": "${source}"}
COLUMNS = 24
KINDS: dict[str, dict[str, Any]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
    "timeseries": {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]}},
    "state-timeline": {"mergeValues": True, "showValue": "never"},
    "table": {"showHeader": True},
}
YES_OR_NO = {
    "type": "value",
    "options": {"0": {"text": "no", "color": "red", "index": 0}, "1": {"text": "yes", "color": "green", "index": 1}},
}


class Choice(NamedTuple):
    """A variable of a dashboard, chosen from the values of a label."""

    name: str
    values: str


DASHBOARDS: dict[str, tuple[str, Sequence[Panel], Sequence[Choice]]] = {
    "twinkle-overview": ("Twinkle / Stacks", OVERVIEW, ()),
    "twinkle-run": (
        "Twinkle / One run",
        RUN,
        (
            Choice("namespace", "label_values(transfer_queue_up, namespace)"),
            Choice("stack", 'label_values(transfer_queue_up{namespace="$namespace"}, stack)'),
        ),
    ),
}


def text(name: str) -> str:
    """A dashboard as JSON."""
    title, panels, choices = DASHBOARDS[name]
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    whole = {
        "uid": name,
        "title": title,
        "tags": ["twinkle"],
        "editable": False,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source, *(_variable(choice) for choice in choices)]},
        "panels": _laid_out(panels),
    }
    return json.dumps(whole, indent=1) + "\n"


def _variable(choice: Choice) -> dict[str, Any]:
    query = {"query": choice.values, "refId": choice.name}
    return {"name": choice.name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "sort": 1}


def _laid_out(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """The panels from left to right and top to bottom, as many in a row as fit."""
    made: list[dict[str, Any]] = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        made.append(_panel(number, panel, x, y))
        x, height = x + panel.width, max(height, panel.height)
    return made


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "bool":
        field |= {"unit": "none", "mappings": [YES_OR_NO], "min": 0, "max": 1}
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": KINDS[panel.kind],
        "targets": [_target(letter, query, panel.kind) for letter, query in zip("ABCD", panel.queries, strict=False)],
    }
    if panel.kind == "table":
        hidden = {"excludeByName": {"Time": True, "Value": True}}
        made["transformations"] = [{"id": "organize", "options": hidden}]
    return made


def _target(letter: str, query: Query, kind: str) -> dict[str, Any]:
    target = {"refId": letter, "datasource": SOURCE, "expr": query.promql, "legendFormat": query.legend}
    return target | ({"format": "table", "instant": True} if kind == "table" else {})
