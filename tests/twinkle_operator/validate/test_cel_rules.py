"""CEL as the API server evaluates it."""

from typing import Any

import pytest

from twinkle_operator.rules import Rule
from twinkle_operator.validate.cel_rules import ABSENT, problems


def schema(*rules: Rule, **inner: Any) -> dict[str, Any]:
    return {**inner, "x-kubernetes-validations": [rule.schema() for rule in rules]}


def said(rules: dict[str, Any], value: Any, before: Any = ABSENT, **more: Any) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in problems(rules, value, before, ("spec",), **more)]


def test_a_rule_that_fails_says_its_sentence_about_its_field() -> None:
    rule = schema(Rule("self.a < 3", "a is too large", ".a"))

    assert said(rule, {"a": 2}) == []
    assert said(rule, {"a": 3}) == ["spec.a: a is too large"]


def test_a_subject_begins_the_sentence_unless_it_breaks_the_line() -> None:
    rule = schema(Rule("self == 'x'", "is not x", subject="'\"' + self + '\"'"))

    assert said(rule, "y") == ['spec: "y" is not x']
    assert said(rule, "y\nz") == ["spec: is not x"]


@pytest.mark.parametrize(
    ("check", "value", "holds"),
    [
        ("isQuantity(self)", "8Gi", True),
        ("isQuantity(self)", "8GiB", False),
        ("quantity(self).compareTo(quantity('16Mi')) >= 0", "16M", False),
        ("self.map(each, each.n).sum() <= 3", [{"n": 1}, {"n": 2}], True),
        ("self.map(each, each.n).sum() <= 3", [], True),
        ("self.exists_one(each, each == 1)", [1, 1], False),
        ("has(self.a) ? self.a == 1 : true", {}, True),
        ("self.matches('^(a|b)$')", "ab", False),
        ("self in ['a', 'b']", "b", True),
        ("string(self.a) == string(2)", {"a": "2"}, True),
        ("7 % self == 0", 2, False),
    ],
)
def test_functions(check: str, value: Any, holds: bool) -> None:
    assert (said(schema(Rule(check, "no")), value) == []) is holds


def test_rules_about_changes_hold_on_updates_alone() -> None:
    rule = schema(Rule("self == oldSelf", "cannot change"))
    inside = {"properties": {"a": rule}}

    assert said(inside, {"a": 1}) == []
    assert said(inside, {"a": 1}, {}) == []
    assert said(inside, {"a": 1}, {"a": 1}) == []
    assert said(inside, {"a": 1}, {"a": 2}) == ["spec.a: cannot change"]


def test_items_are_compared_with_the_item_of_the_same_key() -> None:
    rule = schema(Rule("self.size == oldSelf.size", "cannot change"))
    keyed = {"items": rule, "x-kubernetes-list-map-keys": ["name"]}
    before = [{"name": "a", "size": 1}, {"name": "b", "size": 2}]

    assert said(keyed, before[::-1], before) == []
    assert said(keyed, [{"name": "c", "size": 3}, {"name": "b", "size": 3}], before) == ["spec[1]: cannot change"]
    assert said({"items": rule}, [{"name": "b", "size": 3}], before) == []


def test_values_of_a_map_are_named_in_brackets() -> None:
    assert said({"additionalProperties": schema(Rule("self == 1", "is not 1"))}, {"a": 2}) == ["spec[a]: is not 1"]


def test_what_does_not_fit_the_schema_is_not_read() -> None:
    rules = schema(Rule("self.a > 1", "too small"), properties={"b": schema(Rule("self > 1", "too small"))})
    ill = frozenset({("spec", "a")})

    assert said(rules, {"a": "text", "b": 1}, ill=ill) == ["spec.b: too small"]


def test_a_rule_that_cannot_be_evaluated_refuses_and_says_why() -> None:
    (sentence,) = said(schema(Rule("self.a > 1", "too small")), {})

    assert sentence.startswith("spec: too small (not evaluated: ")
