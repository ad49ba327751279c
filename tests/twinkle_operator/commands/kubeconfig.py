"""A kubeconfig for tests: a context for each cluster, the first one current."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_kubeconfig(folder: Path, **servers: str) -> Path:
    """Contexts of these names for these servers, each with a namespace called team- and the name."""
    path = folder / "kubeconfig"
    contexts = {name: {"cluster": name, "user": "me", "namespace": f"team-{name}"} for name in servers}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": next(iter(servers)),
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": context} for name, context in contexts.items()],
    }
    path.write_text(yaml.safe_dump(document))
    return path
