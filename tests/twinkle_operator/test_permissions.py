"""The operator's rights are few."""

from __future__ import annotations

from twinkle_operator.permissions import RULES, manifest
from twinkle_operator.resources import CHILDREN, WATCHED


def test_no_wildcard_and_nothing_of_secrets() -> None:
    words = {word for rule in RULES for word in (rule.group, *rule.resources, *rule.verbs)}

    assert not any("*" in word for word in words)
    assert not any("secret" in word for word in words)
    assert "escalate" not in words
    assert "impersonate" not in words


def test_what_is_watched_may_be_watched_and_what_is_made_may_be_made() -> None:
    rights = {
        (group, resource, verb)
        for rule in manifest()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for resource in WATCHED:
        assert {(resource.group, resource.plural, verb) for verb in ("list", "watch")} <= rights
    for resource in CHILDREN.values():
        assert {(resource.group, resource.plural, verb) for verb in ("get", "create", "patch")} <= rights
