"""The operator's rights as rules of a role, for the chart: from the one list in `twinkle_operator.permissions`."""

from __future__ import annotations

import json

from twinkle_operator.permissions import RULES, Rule

HEAD = "# Rules of the operator's role. Made from twinkle_operator/permissions.py by `make charts`.\n"


def text() -> str:
    """The rules as YAML, each with its reason as a comment."""
    return HEAD + "".join(_rule(rule) for rule in RULES)


def _rule(rule: Rule) -> str:
    return (
        f"# {rule.why}\n"
        f"- apiGroups: {json.dumps([rule.group])}\n"
        f"  resources: {json.dumps(list(rule.resources))}\n"
        f"  verbs: {json.dumps(list(rule.verbs))}\n"
    )
