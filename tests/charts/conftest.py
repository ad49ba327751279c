"""Fixtures of the charts' tests. What needs a program (helm, promtool) is marked `kube`: `make test-kube` runs it."""

from tests.kube.conftest import helm, promtool

__all__ = ["helm", "promtool"]
