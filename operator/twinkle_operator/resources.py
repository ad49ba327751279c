"""The kinds that the operator reads and writes, and their addresses on the API server."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from twinkle_operator.words import GROUP, KIND, PLURAL, RAY_API_VERSION, RAY_GROUP, STACK_LABEL, VERSION


class Resource(NamedTuple):
    """A kind; `labels` and `fields` select what is watched of it, all of it where both are empty."""

    kind: str
    group: str
    version: str
    plural: str
    labels: str = ""
    fields: str = ""

    @property
    def api_version(self) -> str:
        """As in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Of one object, or of all in a namespace or (None) the cluster."""
        parts = ["apis", self.group] if self.group else ["api"]
        parts += [self.version, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/" + "/".join(quote(part, safe="") for part in [*parts, name, subresource] if part)


STACKS = Resource(KIND, GROUP, VERSION, PLURAL)
CLUSTERS = Resource("RayCluster", RAY_GROUP, "v1", "rayclusters", labels=STACK_LABEL)
JOBS = Resource("RayJob", RAY_GROUP, "v1", "rayjobs", labels=STACK_LABEL)
POLICIES = Resource("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", labels=STACK_LABEL)
PODS = Resource("Pod", "", "v1", "pods", labels=STACK_LABEL)
EVENTS = Resource("Event", "", "v1", "events", fields=f"type=Warning,involvedObject.apiVersion={RAY_API_VERSION}")

WATCHED = (STACKS, CLUSTERS, JOBS, POLICIES, PODS, EVENTS)
CHILDREN = {resource.kind: resource for resource in (CLUSTERS, JOBS, POLICIES)}

Manifest = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name of a stack."""


def version_of(text: str | None) -> int:
    """A resourceVersion as a number, by which two states of one object are ordered; 0 for none."""
    return int(text) if text and text.isdecimal() else 0
