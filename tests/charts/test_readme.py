"""The READMEs, the schema and the rights that are generated: fresh, and made as they say."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import __main__ as command
from charts import readme, schema
from tests.charts.render import OPERATOR, STACK

VALUES = """\
# Not a description.

# -- First, on
# two lines | with a bar.
first: 1
above:
  # -- Second.
  second: {a: [1, 2]}
"""


def test_generated_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--check"]) == 0, capsys.readouterr().err


def test_every_documented_key_is_a_row() -> None:
    rows = list(readme.documented(VALUES))

    assert rows == [
        ("first", "1", "First, on two lines | with a bar."),
        ("above.second", '{"a": [1, 2]}', "Second."),
    ]
    assert readme.table(iter(rows)).splitlines()[2] == "| `first` | `1` | First, on two lines \\| with a bar. |"


@pytest.mark.parametrize("text", ["first: 1", "# -- Above.\n\nfirst: 1", "first:\n  second: 1", "first: {}", "[]"])
def test_a_key_without_comment_is_refused(text: str) -> None:
    with pytest.raises(readme.UndocumentedError):
        list(readme.documented(text))


def test_what_stands_above_the_mark_is_kept() -> None:
    made = readme.renewed(f"# Title\n\nWords.\n\n{readme.MARK}\nold", VALUES)

    assert made.startswith(f"# Title\n\nWords.\n\n{readme.MARK}\n\n## Values\n")
    assert "old" not in made
    assert readme.renewed(made, VALUES) == made


def test_a_schema_refuses_what_the_crd_would_prune() -> None:
    made = schema.strict(
        {
            "type": "object",
            "description": "Kept.",
            "x-kubernetes-validations": [{"rule": "true"}],
            "properties": {
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}},
                "list": {"type": "array", "items": {"type": "object", "properties": {}}},
            },
        }
    )

    assert made == {
        "type": "object",
        "description": "Kept.",
        "additionalProperties": False,
        "properties": {
            "open": {"type": "object"},
            "map": {"type": "object", "additionalProperties": {"type": ["integer", "string"]}},
            "list": {"type": "array", "items": {"type": "object", "properties": {}, "additionalProperties": False}},
        },
    }


@pytest.mark.parametrize("chart", [OPERATOR, STACK])
def test_schemas_leave_no_object_open_by_oversight(chart: Path) -> None:
    open_objects = {
        OPERATOR: {"global", "affinity.nodeAffinity", "affinity.podAffinity", "affinity.podAntiAffinity"},
        STACK: {
            "global",
            "spec.podDefaults",
            "spec.head.podTemplate",
            "spec.deviceGroups[].podTemplate",
            "spec.networkPolicy.egress[]",
        },
    }
    whole = json.loads((chart / "values.schema.json").read_text())

    found = {path.removeprefix(".") for path in _open(whole, "")}

    below = tuple(f"{each}." for each in open_objects[chart])
    assert {path for path in found if not path.startswith(below)} == open_objects[chart]


@pytest.mark.parametrize("chart", [OPERATOR, STACK])
def test_the_schema_and_the_values_have_the_same_keys(chart: Path) -> None:
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    schema["properties"].pop("global")

    _same_keys(values, schema, "")


def _same_keys(values: dict[str, object], schema: dict[str, Any], path: str) -> None:
    if path == ".spec" or "properties" not in schema:
        return
    documented = {"resources", "affinity", "for"}  # whole mappings, whose keys their comments tell
    if path.rpartition(".")[2] not in documented:
        assert values.keys() == schema["properties"].keys(), path
    for name, value in values.items():
        if isinstance(value, dict):
            _same_keys(value, schema["properties"][name], f"{path}.{name}")


def _open(node: dict[str, object], path: str) -> list[str]:
    """Paths of objects that take keys of any name and kind."""
    here = [path] if node.get("type") == "object" and "additionalProperties" not in node else []
    properties = node.get("properties")
    if isinstance(properties, dict):
        here += [each for name, below in properties.items() for each in _open(below, f"{path}.{name}")]
    items = node.get("items")
    if isinstance(items, dict):
        here += _open(items, f"{path}[]")
    return here


@pytest.mark.parametrize("chart", [OPERATOR, STACK])
def test_charts_have_the_version_of_the_package(chart: Path) -> None:
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    project = tomllib.loads((chart.parents[1] / "pyproject.toml").read_text())["project"]

    assert (about["appVersion"], about["version"]) == (project["version"], project["version"])
