"""What the installation decides for all stacks."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Namespaces that reach the pods of every stack, by their names: KubeRay's operator the dashboard, the operator and
    Prometheus the status port."""

    kuberay_namespace: str = "kuberay-system"
    operator_namespace: str = "twinkle-system"
    prometheus_namespace: str = "monitoring"
