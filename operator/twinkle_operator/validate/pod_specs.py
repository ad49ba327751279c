"""Typos in what the CRD keeps as it is: pod templates, pod defaults and egress rules, by Kubernetes' own types.

The client knows types, but neither the words that a field may hold nor that a mount needs a volume: those stand here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from twinkle_operator.pod_template import JOURNAL, MODELS, RUNS
from twinkle_operator.problem import Path, Problem
from twinkle_operator.validate.structure import nearest

_SIMPLE: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
_UNCHECKED = ("object", "datetime", "bytes")
_QUANTITIES = ("limits", "requests", "overhead", "sizeLimit", "divisor")
"""Numbers or text; the client calls them text alone."""
_FILLED_IN = {"V1PodSpec": {"containers"}, "V1PodTemplateSpec": {"spec"}}
"""Required in a pod, and filled in by the operator where they are left out."""
CHOICES = {
    "V1Container.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "V1Container.terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "V1ContainerPort.protocol": ("TCP", "UDP", "SCTP"),
    "V1PodSpec.restartPolicy": ("Always", "OnFailure", "Never"),
    "V1PodSpec.dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "V1Toleration.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}
"""Words that the API server takes in a field; the empty one is its default. tests/kube asks it."""
_OWN_VOLUMES = frozenset({RUNS, JOURNAL, MODELS, "shared-mem"})
"""Made by the operator, and by KubeRay."""


def problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Unknown fields, wrong types and words, what is missing; where `spec` does not fit the CRD's schema, nothing."""
    for path, kind, value in _parts(spec):
        found = list(_any(kind, value, path))
        yield from found
        if kind == "V1PodTemplateSpec" and not found:
            yield from _mounts((*path, "spec"), value.get("spec") or {}, spec.get("podDefaults"))


def _mounts(path: Path, pod: dict[str, Any], defaults: Any) -> Iterator[Problem]:
    """Mounts of volumes that there are not, in a pod whose types are right."""
    below = defaults.get("volumes") if isinstance(defaults, dict) else None
    volumes = [*(pod.get("volumes") or []), *(below if isinstance(below, list) else [])]
    names = [each.get("name") for each in volumes if isinstance(each, dict)]
    there = {name for name in names if isinstance(name, str)} | _OWN_VOLUMES
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(kind) or []):
            for number, mount in enumerate(container.get("volumeMounts") or []):
                if mount["name"] not in there:
                    text = f"no volume is called {mount['name']!r}{nearest(mount['name'], there)}"
                    where = (*path, kind, index, "volumeMounts", number, "name")
                    yield Problem(where, text, reason="InvalidPodTemplate")


def _parts(spec: Mapping[str, Any]) -> Iterator[tuple[Path, str, Any]]:
    defaults = spec.get("podDefaults")
    if isinstance(defaults, dict):
        yield from _defaults(defaults)
    holders: list[tuple[Path, Any]] = [(("spec", "head"), spec.get("head"))]
    groups = spec.get("deviceGroups")
    for index, group in enumerate(groups if isinstance(groups, list) else ()):
        holders.append((("spec", "deviceGroups", index), group))
    for path, holder in holders:
        if isinstance(holder, dict) and isinstance(holder.get("podTemplate"), dict):
            yield (*path, "podTemplate"), "V1PodTemplateSpec", holder["podTemplate"]
    policy = spec.get("networkPolicy")
    egress = policy.get("egress") if isinstance(policy, dict) else None
    if isinstance(egress, list):
        yield ("spec", "networkPolicy", "egress"), "List[V1NetworkPolicyEgressRule]", egress


def _defaults(defaults: dict[str, Any]) -> Iterator[tuple[Path, str, Any]]:
    """A PodSpec without containers, and what belongs to container 0."""
    of_container = {
        "env": "List[V1EnvVar]",
        "envFrom": "List[V1EnvFromSource]",
        "imagePullPolicy": "V1Container.imagePullPolicy",
    }
    pod = {name: value for name, value in defaults.items() if name not in of_container}
    yield ("spec", "podDefaults"), "V1PodSpec", pod
    for name, kind in of_container.items():
        if name in defaults:
            yield ("spec", "podDefaults", name), kind, defaults[name]


def _any(kind: str, value: Any, path: Path) -> Iterator[Problem]:
    """What is wrong with a value, by the client's type of it (str, List[V1Volume], Dict[str, str], V1PodSpec)."""
    if value is None or kind in _UNCHECKED:
        return
    if match := re.fullmatch(r"List\[(.*)\]", kind):
        yield from _items(match[1], value, path)
    elif match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        if not isinstance(value, dict):
            yield Problem(path, f"must be a mapping, not {value!r}", reason="InvalidPodTemplate")
        elif path[-1] not in _QUANTITIES:
            for key, each in value.items():
                yield from _any(match[1], each, (*path, key))
    elif kind in _SIMPLE:
        if path[-1] not in _QUANTITIES and not _is(value, kind):
            wanted = {"str": "text (quote it)", "int": "an integer", "bool": "true or false", "float": "a number"}[kind]
            yield Problem(path, f"must be {wanted}, not {value!r}", reason="InvalidPodTemplate")
    elif kind in CHOICES:
        if value not in ("", *CHOICES[kind]):
            text = f"{json.dumps(value)} is unknown; choose one of: {', '.join(CHOICES[kind])}"
            yield Problem(path, text, reason="InvalidPodTemplate")
    else:
        yield from _object(kind, value, path)


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _SIMPLE[kind]) and (kind == "bool" or not isinstance(value, bool))


def _items(kind: str, value: Any, path: Path) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(path, f"must be a list, not {value!r}", reason="InvalidPodTemplate")
        return
    for index, each in enumerate(value):
        yield from _any(kind, each, (*path, index))


def _object(kind: str, value: Any, path: Path) -> Iterator[Problem]:
    from kubernetes.client import models  # takes a second: only stacks with pod templates pay for it

    model = getattr(models, kind)
    if not isinstance(value, dict):
        yield Problem(path, f"must be a mapping, not {value!r}", reason="InvalidPodTemplate")
        return
    names = {name: python for python, name in model.attribute_map.items()}
    for name, each in value.items():
        if name not in names:
            yield Problem((*path, name), f"unknown field{nearest(name, names)}", reason="InvalidPodTemplate")
        elif kind == "V1PodSpec" and name == "containers" and path == ("spec", "podDefaults"):
            text = "podDefaults has no containers: env, envFrom and imagePullPolicy of container 0 stand in podDefaults"
            yield Problem((*path, name), text, reason="InvalidPodTemplate")
        else:
            field = f"{kind}.{name}"
            yield from _any(field if field in CHOICES else model.openapi_types[names[name]], each, (*path, name))
    fields = model.model_fields
    needed = {name for name, python in names.items() if python in fields and fields[python].is_required()}
    given = {name for name, each in value.items() if each is not None}
    for name in sorted(needed - given - _FILLED_IN.get(kind, set())):
        yield Problem((*path, name), f"Required value. {kind[2:]} needs it", reason="InvalidPodTemplate")
