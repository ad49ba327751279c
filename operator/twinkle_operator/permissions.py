"""Everything the operator asks of the API server, and nothing else: the role in charts and tests is this list.

Discovery (`/api`, `/apis`) is left out: Kubernetes grants it to every authenticated client. There is no verb
on secrets, no wildcard, and nothing that is not namespaced: a Role in each watched namespace does as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twinkle_operator.words import GROUP, PLURAL, RAY_GROUP


class Rule(NamedTuple):
    """One rule of a Role: these verbs on these resources of one API group."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str


RULES = (
    Rule(GROUP, (PLURAL,), ("get", "list", "watch"), "the stacks; one is read again before an attempt begins"),
    Rule(GROUP, (f"{PLURAL}/status",), ("patch",), "what the operator says of them"),
    Rule(
        RAY_GROUP,
        ("rayclusters", "rayjobs"),
        ("get", "list", "watch", "create", "patch", "delete"),
        "the children that run; a name is looked up before it is used, and when somebody else holds a field",
    ),
    Rule(
        "networking.k8s.io",
        ("networkpolicies",),
        ("get", "list", "watch", "create", "patch"),
        "who reaches the pods; looked up likewise, deleted with the stack by Kubernetes itself",
    ),
    Rule("", ("pods",), ("list", "watch"), "which pods of a stack are ready, and why not"),
    Rule("", ("events",), ("list", "watch", "create", "patch"), "KubeRay's refusals are read, our own events written"),
)


def manifest() -> list[dict[str, Any]]:
    """The rules as `rules` of a Role or ClusterRole."""
    return [{"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)} for rule in RULES]
