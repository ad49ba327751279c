"""The schema of training-stack's values: a frame written by hand, and in it the spec as the CRD has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

CRD = "trainingstacks.twinkle.dev.yaml"
BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
KEPT = frozenset(("type", "description", "enum", "pattern", "required", *BOUNDS))


def text(frame: Path, crd: Path) -> str:
    """The schema as JSON. Nothing in `spec.run.volume` is required: the chart knows the name of its claim."""
    whole: dict[str, Any] = json.loads(frame.read_text())
    version = yaml.safe_load(crd.read_text())["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    whole["properties"]["spec"] = strict(spec)
    whole["properties"]["spec"]["properties"]["run"]["properties"]["volume"].pop("required", None)
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """A structural schema of Kubernetes as JSON Schema: keys that it does not declare are refused, not pruned."""
    made = {key: value for key, value in node.items() if key in KEPT}
    if node.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in node:
        made["properties"] = {name: strict(each) for name, each in node["properties"].items()}
    if "items" in node:
        made["items"] = strict(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(node["additionalProperties"])
    elif node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made
