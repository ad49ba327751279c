"""The CustomResourceDefinitions of Prometheus' operator, out of its Go module."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
"""As in a go.sum; no program is built of this module, so it has no go.mod of ours that could pin it."""
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")


def crds() -> list[Path] | None:
    """Their files in Go's module cache, downloaded if need be; None where there is no Go.

    Raises:
        RuntimeError: the module cannot be had, or is not the one that was pinned.
    """
    go = shutil.which("go")
    if go is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [go, "mod", "download", "-json", MODULE]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    answer = json.loads(ended.stdout or "{}")
    if answer.get("Sum") != SUM:
        raise RuntimeError(f"go mod download {MODULE}: {answer.get('Error') or ended.stderr or answer}")
    folder = Path(answer["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]
