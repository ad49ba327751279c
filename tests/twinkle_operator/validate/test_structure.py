"""Structural schemas: what fits, and what is filled in."""

from typing import Any

import pytest

from twinkle_operator.validate.structure import nearest, problems, with_defaults

POINT = {
    "type": "object",
    "required": ["x"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "maximum": 9, "description": "Across."},
        "y": {"type": "integer", "default": 5},
        "tags": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string", "maxLength": 3}},
        "word": {"type": "string", "enum": ["a", "b"]},
        "size": {"x-kubernetes-int-or-string": True},
        "open": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"n": {"type": "string"}},
        },
    },
}
LIST = {"type": "array", "minItems": 1, "maxItems": 2, "items": POINT, "x-kubernetes-list-map-keys": ["x"]}


def said(schema: dict[str, Any], value: Any) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in problems(schema, value)]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], ": must be of type object, not array"),
        ({}, "x: Required value. Across."),
        ({"x": True}, "x: must be of type integer, not boolean"),
        ({"x": 1.5}, "x: must be of type integer, not number"),
        ({"x": -1}, "x: should be greater than or equal to 0, not -1"),
        ({"x": 10}, "x: should be less than or equal to 9, not 10"),
        ({"x": None}, "x: must be of type integer, not null"),
        ({"x": 1, "z": None}, "z: unknown field"),
        ({"x": 1, "tagz": {}}, "tagz: unknown field; did you mean tags?"),
        ({"x": 1, "tags": {"a": "b", "c": "d"}}, "tags: Too many: 2: must have at most 1 items"),
        ({"x": 1, "tags": {"a": "long"}}, "tags[a]: Too long: may not be more than 3 bytes"),
        ({"x": 1, "word": "c"}, 'word: Unsupported value: "c": supported values: "a", "b"'),
        ({"x": 1, "size": 1.5}, "size: must be of type integer or string, not number"),
        ({"x": 1, "size": False}, "size: must be of type integer or string, not boolean"),
        ({"x": 1, "open": {"n": 1}}, "open.n: must be of type string, not integer"),
    ],
)
def test_one_thing_is_wrong(value: Any, sentence: str) -> None:
    assert said(POINT, value) == [sentence]


@pytest.mark.parametrize("value", [{"x": 1}, {"x": 2.0}, {"x": 1, "size": "1"}, {"x": 1, "open": {"other": [1, {}]}}])
def test_nothing_is_wrong(value: Any) -> None:
    assert said(POINT, value) == []


def test_lists() -> None:
    assert said(LIST, []) == [": should have at least 1 items, not 0"]
    assert said(LIST, [{"x": 1}, {"x": 2}, {"x": 3}]) == [": Too many: 3: must have at most 2 items"]
    assert said(LIST, [{"x": 1}, {"x": 1}]) == ['[1]: Duplicate value: {"x":1}']
    assert said(LIST, [{"x": 1}, 3]) == ["[1]: must be of type object, not integer"]


def test_defaults_stand_in_for_what_is_left_out_or_null() -> None:
    schema = {"type": "object", "properties": {"at": {**POINT, "default": {}}, "all": LIST}}

    assert with_defaults(schema, {"all": [{"x": 1, "y": None}]}) == {"at": {"y": 5}, "all": [{"x": 1, "y": 5}]}
    assert with_defaults(POINT, {"x": None, "open": {"other": None}}) == {"y": 5, "open": {"other": None}}
    assert with_defaults(POINT, "text") == "text"


def test_a_default_is_a_copy() -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "object", "default": {"a": "b"}}}}
    with_defaults(schema, {})["tags"]["a"] = "c"

    assert with_defaults(schema, {}) == {"tags": {"a": "b"}}


def test_the_nearest_name() -> None:
    assert nearest("enigne", ["engine", "role"]) == "; did you mean engine?"
    assert nearest("zzz", ["engine", "role"]) == ""
