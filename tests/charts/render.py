"""Runs helm on the charts, and looks things up in what it renders."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

CHARTS = Path(__file__).parents[2] / "charts"
KUBERNETES = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
FOREIGN = ("monitoring.coreos.com/", "twinkle.dev/")
"""Groups whose schemas Kubernetes does not bring."""
OPERATOR, STACK = CHARTS / "twinkle-operator", CHARTS / "training-stack"
Values = dict[str, Any]
Manifest = dict[str, Any]


class HelmError(RuntimeError):
    """Helm refused; the message is its own."""


def run(helm: Path, *arguments: str, values: Values | None = None, kubeconfig: Path | None = None) -> str:
    """What helm prints; `values` are those of `--values`.

    Raises:
        HelmError: it ended with an error.
    """
    command = [str(helm), *arguments, *(["--values", "-"] if values is not None else [])]
    environment = {"HOME": "/nonexistent", "KUBECONFIG": str(kubeconfig or "/nonexistent")}
    given = None if values is None else json.dumps(values)
    ended = subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    if ended.returncode:
        raise HelmError(ended.stderr)
    return ended.stdout


def rendered(helm: Path, chart: Path, values: Values | None = None, *options: str) -> list[Manifest]:
    """The manifests of a release `twinkle` in the namespace `twinkle-system`, those of hooks included."""
    text = run(helm, "template", "twinkle", str(chart), "--namespace=twinkle-system", *options, values=values or {})
    return [each for each in yaml.safe_load_all(text) if each]


def only(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one manifest of a kind, and of a name if there are several."""
    found = [each for each in manifests if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def kinds(manifests: list[Manifest]) -> set[str]:
    return {each["kind"] for each in manifests}


def validate(manifests: list[Manifest]) -> None:
    """Against the schemas of every Kubernetes that the charts promise; fields that it does not know are errors."""
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(FOREIGN):
            for version in KUBERNETES:
                kubernetes_validate.validate(manifest, version, strict=True)
