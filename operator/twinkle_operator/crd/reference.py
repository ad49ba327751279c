"""The reference page of the fields, in Markdown, from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from twinkle_operator.crd.schema import Schema
from twinkle_operator.words import API_VERSION, KIND, SHORT

_HEAD = f"""# Fields of a {KIND}

`{API_VERSION}`, short name `{SHORT}`. What is refused is refused when the object is applied, with the sentence given
here; `twinkle validate FILE` says the same without a cluster. Sizes count prompts, rows count samples.
"""


def reference(schema: Schema) -> str:
    """The whole page: a section for each object, with a table of its fields and the sentences of its rules."""
    root = _refusals(schema, "`metadata.name`")
    sections = [
        "\n".join(_section(path, part))
        for name in ("spec", "status")
        for path, part in _objects(name, schema["properties"][name])
    ]
    return "\n".join([_HEAD, *root, "", *sections]).rstrip() + "\n"


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """This object and those below it; a podTemplate is one field."""
    if "properties" not in schema or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    yield path, schema
    for name, field in schema["properties"].items():
        inner = f"{path}.{name}"
        yield from _objects(inner, field)
        yield from _objects(f"{inner}[]", field.get("items", {}))


def _section(path: str, schema: Schema) -> Iterator[str]:
    yield f"## {path}"
    yield ""
    yield schema["description"]
    yield ""
    yield "| field | type | default | what |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(field)
        text = field["description"].rpartition(" Default: ")[0] if "default" in field else field["description"]
        yield f"| `{name}` | {_kind(field)} | {default} | {_cell(text or field['description'])} |"
    yield ""
    refusals = _refusals(schema, "")
    for name, field in schema["properties"].items():
        refusals += _refusals(field, f"`{name}`")
        for key, each in (("items", f"an item of `{name}`"), ("additionalProperties", f"a value of `{name}`")):
            if "properties" not in field.get(key, {}):
                refusals += _refusals(field.get(key, {}), each)
    if refusals:
        yield from ("Refused:", "", *refusals, "")


def _refusals(schema: Schema, subject: str) -> list[str]:
    rules = schema.get("x-kubernetes-validations", ())
    return [f"- {subject + ' ' if 'messageExpression' in rule and subject else ''}{rule['message']}" for rule in rules]


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    return f"`{json.dumps(field['default'])}`" if field["default"] not in ({}, []) else ""


def _kind(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{word}`" for word in field["enum"])
    if field["type"] == "integer":
        low, high = field.get("minimum", ""), field.get("maximum", "")
        return f"integer {low}..{high}" if "minimum" in field or "maximum" in field else "integer"
    if field["type"] == "array":
        inner = _kind(field["items"]) if field["items"].get("type") != "object" else "object"
        sizes = f"{field.get('minItems', 0)}..{field['maxItems']} " if "maxItems" in field else ""
        return f"list of {sizes}{inner}s"
    if "additionalProperties" in field:
        return f"{_kind(field['additionalProperties'])} by name"
    return str(field["type"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
