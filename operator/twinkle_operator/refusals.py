"""What the API server refused of a stack's children, in words for the one who wrote the stack."""

from __future__ import annotations

import re

from twinkle_operator.errors import Forbidden, NameTaken, Refused
from twinkle_operator.observed import Refusal, Stack
from twinkle_operator.resources import CLUSTERS, JOBS, POLICIES, Key, Manifest

REASONS = {CLUSTERS.kind: "InvalidPodTemplate", JOBS.kind: "InvalidRayJob", POLICIES.kind: "InvalidNetworkPolicy"}
TEXT = 1024

_TYPED = re.compile(r"(\.[A-Za-z]\S*): ([^\n]+)")
"""A path and what is wrong with it, as "typed patch" errors name them."""
_GROUP = re.compile(r"^spec\.workerGroupSpecs\[(\d+)\]\.template\.?")
_HEAD = re.compile(r"^spec\.headGroupSpec\.template\.?")


class Refusals:
    """Refused children by stack. Those refused for what is in them hold until the stack's generation changes."""

    def __init__(self) -> None:
        self._held: dict[Key, dict[tuple[str, str], Refusal]] = {}

    def of(self, stack: Stack) -> tuple[Refusal, ...]:
        """What is refused of the stack as it is now."""
        held = self._held.get((stack.namespace, stack.name), {})
        return tuple(each for each in held.values() if each.generation == stack.generation)

    def final(self, stack: Stack, manifest: Manifest) -> bool:
        """Whether sending the child again is pointless."""
        at = manifest["kind"], manifest["metadata"]["name"]
        return any((each.kind, each.name) == at and each.reason in REASONS.values() for each in self.of(stack))

    def retry(self, stack: Stack) -> None:
        """Forget what time may have mended: rights, quotas, names."""
        held = self._held.get((stack.namespace, stack.name), {})
        for at in [at for at, each in held.items() if each.reason not in REASONS.values()]:
            del held[at]

    def add(self, stack: Stack, refusal: Refusal) -> None:
        """Remember it, in place of an earlier one of the same child."""
        held = self._held.setdefault((stack.namespace, stack.name), {})
        held[refusal.kind, refusal.name] = refusal

    def forget(self, key: Key) -> None:
        """The stack is no more."""
        self._held.pop(key, None)


def refusal(stack: Stack, manifest: Manifest, error: Refused | Forbidden | NameTaken) -> Refusal:
    """The error of an apply as a refusal; its message names the field as the stack's author knows it."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    if isinstance(error, Refused):
        reason, message = REASONS[kind], "; ".join(_complaints(manifest, error)) or error.message
    elif isinstance(error, Forbidden):
        reason, message = "Forbidden", error.message
    else:
        reason, message = "NameTaken", str(error)
    return Refusal(
        kind=kind, name=name, generation=stack.generation, reason=reason, message=f"{kind} {name}: {message}"[:TEXT]
    )


def outdated_schema(manifest: Manifest, error: Refused) -> str:
    """The fields that KubeRay's CRD does not declare although no template is at fault: it is too old; else empty."""
    if manifest["kind"] == POLICIES.kind:
        return ""
    unknown = [path for path, text in _fields(error) if "not declared in schema" in text]
    return "" if any("emplate" in path for path in unknown) else ", ".join(unknown)


def _complaints(manifest: Manifest, error: Refused) -> list[str]:
    return [f"{_known(manifest, path)}: {text}" for path, text in _fields(error)[:4]]


def _fields(error: Refused) -> list[tuple[str, str]]:
    found = list(error.fields) or [(path, text.strip()) for path, text in _TYPED.findall(error.message)]
    return [(path.removeprefix("."), text) for path, text in found]


def _known(manifest: Manifest, path: str) -> str:
    """`spec.workerGroupSpecs[1].template.spec.x` as `podTemplate.spec.x of device group trainer`."""
    if _HEAD.match(path):
        return f"podTemplate.{_HEAD.sub('', path)} of the head".replace("podTemplate. ", "podTemplate ")
    at = _GROUP.match(path)
    if at is None:
        return path
    groups = manifest.get("spec", {}).get("workerGroupSpecs", [])
    name = groups[int(at[1])].get("groupName", at[1]) if int(at[1]) < len(groups) else at[1]
    return f"podTemplate.{_GROUP.sub('', path)} of device group {name}".replace("podTemplate. ", "podTemplate ")
