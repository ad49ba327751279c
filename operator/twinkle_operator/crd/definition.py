"""The whole CustomResourceDefinition."""

from __future__ import annotations

from functools import cache
from typing import Any

from twinkle_operator.crd.schema import Schema, struct_schema
from twinkle_operator.rules import STACK
from twinkle_operator.spec import Spec
from twinkle_operator.state import Status
from twinkle_operator.words import GROUP, KIND, PLURAL, SHORT, VERSION

NAME = f"{PLURAL}.{GROUP}"
_READY = '.status.conditions[?(@.type=="Ready")]'
_COLUMNS = (
    ("Ready", "string", f"{_READY}.status", "Whether the stack trains."),
    ("Queue", "string", ".status.queue.summary", "Rows ready / required by the task that asked last."),
    ("Samplers", "string", ".status.samplers", "Sampler pods ready / wanted."),
    ("Step", "integer", ".status.progress.step", "Optimizer steps done."),
    ("Reason", "string", f"{_READY}.reason", "Why Ready is what it is."),
    ("Age", "date", ".metadata.creationTimestamp", "Since the stack was made."),
)


@cache
def stack_schema() -> Schema:
    """The openAPIV3Schema of a TrainingStack; one object for all callers, not to be changed."""
    return {
        "type": "object",
        "description": "One run of reinforcement learning: a Ray cluster, its queue, samplers and trainer.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},  # for fieldPath
            "spec": {**struct_schema(Spec, by_people=True), "description": "What is wanted."},
            "status": {**struct_schema(Status, by_people=False), "description": "What is; the operator writes it."},
        },
        "x-kubernetes-validations": [rule.schema() for rule in STACK],
    }


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition, as it is applied."""
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": [SHORT],
        "categories": ["all", "twinkle"],
    }
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "description": text} for name, kind, path, text in _COLUMNS
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": stack_schema()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
