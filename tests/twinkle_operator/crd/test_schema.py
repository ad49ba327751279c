"""The schema says everything that a person needs, and no more than Kubernetes allows."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given

from tests.kube.cases import base
from tests.kube.specs import stacks
from twinkle_operator.crd import definition
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.crd.schema import struct_schema
from twinkle_operator.spec import Spec
from twinkle_operator.validate.structure import with_defaults

Schema = dict[str, Any]
SPEC = stack_schema()["properties"]["spec"]
STATUS = stack_schema()["properties"]["status"]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def test_every_field_has_a_description_that_ends_as_a_sentence_and_names_its_default() -> None:
    for path, schema in [*nodes(SPEC, "spec"), *nodes(STATUS, "status")]:
        if not path.endswith("[]"):
            assert schema["description"].endswith((".", "?")), path
            if isinstance(schema.get("default"), str | int):
                assert "Default: " in schema["description"], path


def test_numbers_have_formats_and_lists_say_how_they_merge() -> None:
    for path, schema in [*nodes(SPEC, "spec"), *nodes(STATUS, "status")]:
        if schema.get("type") == "integer":
            assert schema["format"] in ("int32", "int64"), path
        if schema.get("type") == "array":
            assert schema["x-kubernetes-list-type"] in ("atomic", "map"), path
    assert SPEC["properties"]["deviceGroups"]["x-kubernetes-list-map-keys"] == ["name"]
    assert STATUS["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def test_what_people_write_has_no_pattern_and_no_enum() -> None:
    for path, schema in nodes(SPEC, "spec"):
        assert not {"pattern", "enum"} & schema.keys(), path


def test_texts_and_lists_of_the_spec_are_bounded_so_that_rules_have_a_cost() -> None:
    for path, schema in nodes(SPEC, "spec"):
        if schema.get("type") == "string":
            assert "maxLength" in schema, path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path


def test_the_api_server_adds_nothing_to_a_status() -> None:
    assert [path for path, schema in nodes(STATUS, "status") if "default" in schema] == []


def test_rules_end_without_a_full_stop_and_say_the_same_with_the_value_before_them() -> None:
    for path, schema in nodes(SPEC, "spec"):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert not rule["message"].endswith("."), path
            assert rule["message"] in rule.get("messageExpression", rule["message"]).replace('\\"', '"'), path


def test_only_the_part_of_a_pod_template_that_rules_read_is_declared() -> None:
    template = SPEC["properties"]["head"]["properties"]["podTemplate"]
    containers = template["properties"]["spec"]["properties"]["containers"]

    assert template["x-kubernetes-preserve-unknown-fields"]
    assert set(containers["items"]["properties"]) == {"name", "image", "resources"}
    assert containers["maxItems"] == 8


def test_columns() -> None:
    (version,) = definition()["spec"]["versions"]

    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "Ready", "Queue", "Samplers", "Step", "Reason", "Age",
    ]  # fmt: skip


@given(stacks(trained=False))
def test_what_the_schema_fills_in_is_what_the_types_fill_in(stack: dict[str, Any]) -> None:
    filled = with_defaults(SPEC, stack["spec"])

    assert msgspec.convert(filled, Spec) == msgspec.convert(stack["spec"], Spec)


def test_left_out_parts_start_with_their_defaults() -> None:
    filled = with_defaults(SPEC, {"deviceGroups": base()["spec"]["deviceGroups"], "run": {"experiment": "quickstart"}})

    assert filled["storage"] == {"backend": "ray"}
    assert filled["controller"]["taskSamplers"] == {"train": "GRPOSampler"}
    assert filled["deviceGroups"][2]["mesh"] == dict.fromkeys(("dp", "fsdp", "tp", "pp", "cp", "ep"), 1)


def test_a_type_that_kubernetes_has_no_word_for_is_refused() -> None:
    class Wrong(msgspec.Struct):
        """Has a number with a fraction."""

        share: float

    with pytest.raises(TypeError, match="has no place in a structural schema"):
        struct_schema(Wrong, by_people=True)
