"""The alerts fire when they should, by Prometheus' own rule tests; dashboards and alerts hold PromQL that it parses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from charts.dashboards import DASHBOARDS
from tests.charts.render import OPERATOR, only, rendered

pytestmark = pytest.mark.kube
HERE = Path(__file__).parent


def run(promtool: Path, *arguments: str | Path) -> None:
    ended = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_alerts_fire_when_they_should(promtool: Path, tmp_path: Path) -> None:
    shutil.copy(HERE / "alerts.yaml", tmp_path)
    shutil.copy(OPERATOR / "files" / "alerts.yaml", tmp_path / "rules.yaml")

    run(promtool, "check", "rules", tmp_path / "rules.yaml")
    run(promtool, "test", "rules", tmp_path / "alerts.yaml")


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((HERE / "alerts.yaml").read_text())["tests"]
    groups = yaml.safe_load((OPERATOR / "files" / "alerts.yaml").read_text())["groups"]
    fires = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}

    assert fires == {rule["alert"] for group in groups for rule in group["rules"]}


def test_the_charts_rules_are_prometheus(helm: Path, promtool: Path, tmp_path: Path) -> None:
    values = {"monitoring": {"alerts": {"enabled": True, "for": {"StackNotReady": "2h30m"}, "labels": {"team": "rl"}}}}
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(only(rendered(helm, OPERATOR, values), "PrometheusRule")["spec"]))

    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", rules)


def test_dashboards_hold_promql(promtool: Path, tmp_path: Path) -> None:
    queries = [query for _, panels, _ in DASHBOARDS.values() for panel in panels for query in panel.queries]
    rules = [{"record": f"panel:{number}", "expr": query.promql} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    run(promtool, "check", "rules", "--lint=none", file)
