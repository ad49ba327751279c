"""What is wrong with a stack that the API server took: CEL sees no labels, and nothing undeclared in a podTemplate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from twinkle_operator.problem import MapKey, Path, Problem
from twinkle_operator.words import GROUP, KUEUE_LABEL, RAY_GROUP, RAY_VERSION

UNTRAINED_AXES = ("fsdp", "tp", "pp", "cp", "ep")
_NAME = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)"
_PREFIX = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/"
_HOST = {"hostNetwork": "network", "hostPID": "processes", "hostIPC": "shared memory"}


def problems(stack: Mapping[str, Any]) -> list[Problem]:
    """Errors with which this version cannot run the stack, and warnings; in the order of the file.

    `stack` is the object as the API server has it: camelCase, defaults filled in or not. Whatever CEL refuses may be
    in it and is not repeated here. Never raises.
    """
    spec = _mapping(stack.get("spec"))
    found = [*_versions(spec), *_suspended(spec), *_service_account(("spec",), spec)]
    found += _pod(("spec", "podDefaults"), spec["podDefaults"])
    found += _template(("spec", "head", "podTemplate"), _mapping(spec["head"])["podTemplate"])
    for index, given in enumerate(_list(spec["deviceGroups"])):
        group, path = _mapping(given), ("spec", "deviceGroups", index)
        found += [*_mesh(path, group), *_device(path, group)]
        found += _template((*path, "podTemplate"), group["podTemplate"])
    return found


def _versions(spec: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = spec["rayVersion"]
    if wanted is not None and wanted != RAY_VERSION:
        text = f"the operator is made for Ray {RAY_VERSION}; with {wanted} in the image the driver may not start"
        yield Problem(("spec", "rayVersion"), text, "warning", "OtherRayVersion")


def _suspended(spec: Mapping[str, Any]) -> Iterator[Problem]:
    if spec["suspend"] is True and not _mapping(spec["run"])["volume"]:
        text = "a run without run.volume begins anew after it: its folder goes with the head pod"
        yield Problem(("spec", "suspend"), text, "warning", "NoVolume")


def _mesh(path: Path, group: Mapping[str, Any]) -> Iterator[Problem]:
    mesh = _mapping(group["mesh"])
    for axis in UNTRAINED_AXES if group["role"] == "trainer" else ():
        if mesh[axis] not in (None, 1):
            text = f"this version trains along dp alone; {axis} is {mesh[axis]}: leave it out and size the group by dp"
            yield Problem((*path, "mesh", axis), text, "error", "UnsupportedMesh")


def _device(path: Path, group: Mapping[str, Any]) -> Iterator[Problem]:
    if group["deviceType"] == "npu" and group["role"] != "reward":
        text = "this version trains and samples on cpu and cuda; an npu can be counted, but no model runs on it"
        yield Problem((*path, "deviceType"), text, "error", "UnsupportedDevice")


def _template(path: Path, given: object) -> Iterator[Problem]:
    template = _mapping(given)
    metadata = _mapping(template["metadata"])
    yield from _labels((*path, "metadata", "labels"), _mapping(metadata["labels"]))
    yield from _service_account((*path, "spec"), _mapping(template["spec"]))
    yield from _pod((*path, "spec"), template["spec"])


def _labels(path: Path, labels: Mapping[str, Any]) -> Iterator[Problem]:
    for key in map(str, labels):
        prefix = key.rpartition("/")[0]
        if key == KUEUE_LABEL:
            text = "Kueue would queue each pod by itself: set this label on the stack, which becomes one workload"
            yield Problem((*path, MapKey(key)), text, "error", "MisplacedLabel")
        elif prefix in (GROUP, RAY_GROUP) or prefix.endswith((f".{GROUP}", f".{RAY_GROUP}")):
            text = f"labels of {prefix} are set by the operator and KubeRay: leave it out"
            yield Problem((*path, MapKey(key)), text, "error", "ReservedLabel")
    yield from label_problems(path, labels)


def label_problems(path: Path, labels: object) -> Iterator[Problem]:
    """Labels that no object can bear."""
    for key, value in _mapping(labels).items():
        if not re.fullmatch(rf"({_PREFIX})?{_NAME}", str(key)):
            text = f"{key!r} is no label: [prefix/]name, name of at most 63 letters, digits, - _ ."
            yield Problem((*path, MapKey(key)), text, "error", "InvalidLabel")
        elif not isinstance(value, str) or not re.fullmatch(f"{_NAME}?", value):
            text = f"{value!r} is no label value: a string of <= 63 letters, digits, - _ . (quote true and numbers)"
            yield Problem((*path, MapKey(key)), text, "error", "InvalidLabel")


def _service_account(path: Path, holder: Mapping[str, Any]) -> Iterator[Problem]:
    if holder["serviceAccountName"]:
        text = f"every program in these pods may act as service account {holder['serviceAccountName']!r}"
        yield Problem((*path, "serviceAccountName"), text, "warning", "ServiceAccount")


def _pod(path: Path, given: object) -> Iterator[Problem]:
    """Warnings of what reaches beyond the pod."""
    pod = _mapping(given)
    for key, what in _HOST.items():
        if pod[key] is True:
            yield Problem((*path, key), f"these pods share the {what} of their node", "warning", "HostAccess")
    for index, volume in enumerate(_list(pod["volumes"])):
        if (host := _mapping(volume)["hostPath"]) is not None:
            text = f"these pods read and write {_mapping(host)['path']!r} of their node"
            yield Problem((*path, "volumes", index, "hostPath"), text, "warning", "HostAccess")
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_list(pod[kind])):
            if _mapping(_mapping(container)["securityContext"])["privileged"] is True:
                where = (*path, kind, index, "securityContext", "privileged")
                yield Problem(where, "a privileged container owns its node", "warning", "HostAccess")


class _Fields(dict[str, Any]):
    """A mapping in which what is not there is None."""

    def __missing__(self, key: str) -> None:
        return None


def _mapping(value: object) -> _Fields:
    return _Fields(value) if isinstance(value, Mapping) else _Fields()


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
