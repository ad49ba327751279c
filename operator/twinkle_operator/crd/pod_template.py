"""The part of a PodTemplateSpec that CEL rules read. The rest is kept as it is, and checked when pods are made."""

from __future__ import annotations

from typing import Any

from twinkle_operator.rules import IMAGE, RESOURCE

MOST_CONTAINERS = 8
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_AMOUNTS = {
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 64,
        "x-kubernetes-validations": [rule.schema() for rule in RESOURCE],
    },
}
_RESOURCES = {
    **_OPEN,
    "description": "What the container gets of its node.",
    "properties": {
        "requests": {**_AMOUNTS, "description": "What the scheduler sets apart, by name: cpu, memory, nvidia.com/gpu."},
        "limits": {**_AMOUNTS, "description": "What it may use at most, by name."},
    },
}
_CONTAINER = {
    **_OPEN,
    "description": "A Container.",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 63, "description": "Unique within the pod."},
        "image": {
            "type": "string",
            "maxLength": 512,
            "description": "Left out: spec.image.",
            "x-kubernetes-validations": [rule.schema() for rule in IMAGE],
        },
        "resources": _RESOURCES,
    },
}
_CONTAINERS = {
    "type": "array",
    "description": "Container 0 is Ray's: its command and ports are filled in.",
    "minItems": 1,
    "maxItems": MOST_CONTAINERS,
    "x-kubernetes-list-type": "atomic",
    "items": _CONTAINER,
}

POD_TEMPLATE: dict[str, Any] = {
    **_OPEN,
    "properties": {"spec": {**_OPEN, "description": "A PodSpec.", "properties": {"containers": _CONTAINERS}}},
}
