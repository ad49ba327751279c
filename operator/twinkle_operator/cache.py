"""What the operator has seen, of every stack; one stack of it is the `Observed` of a plan.

Events and lists may come late, twice or out of order: of two states of an object the one with the higher resourceVersion stays.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from twinkle_operator import managed, strip
from twinkle_operator.observed import Job, Observed, Pod, Poll, Refusal, Stack
from twinkle_operator.resources import CHILDREN, EVENTS, PODS, STACKS, Key, Manifest, Resource, version_of
from twinkle_operator.words import STACK_LABEL

MOST_WARNINGS = 8
"""Of one child."""
MOST_WARNED = 4096
"""Children whose warnings are kept, the newest."""

A = TypeVar("A", bound=Hashable)
B = TypeVar("B")

Address = tuple[str, str, str]
"""Kind, namespace and name."""


class Child(NamedTuple):
    """A child as last seen: `owner` is the uid of its stack, `owned` the digest of the fields that are ours."""

    uid: str
    owner: str
    version: int
    generation: int
    deleting: bool
    owned: bytes
    text: bytes

    @property
    def manifest(self) -> Manifest:
        """The object as `strip.child` left it."""
        decoded: Manifest = msgspec.json.decode(zlib.decompress(self.text))
        return decoded


class Cache:
    """All stacks and what belongs to them. Methods that take an object return the stack whose view changed, or None."""

    def __init__(self) -> None:
        self._stacks: dict[Key, Stack] = {}
        self._children: dict[Key, dict[tuple[str, str], Child]] = {}
        self._pods: dict[Key, dict[str, tuple[int, Pod]]] = {}
        self._warnings: OrderedDict[Address, list[strip.Warned]] = OrderedDict()
        self._versions: dict[Address, int] = {}
        self._owners: dict[Address, Key] = {}
        self._listing: dict[str, dict[Address, int]] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._stacks))

    def __len__(self) -> int:
        return len(self._stacks)

    def stack(self, key: Key) -> Stack | None:
        """As last seen."""
        return self._stacks.get(key)

    def child(self, key: Key, kind: str, name: str) -> Child | None:
        """As last seen, whoever owns it."""
        return self._children.get(key, {}).get((kind, name))

    def observe(self, key: Key, poll: Poll | None, refusals: tuple[Refusal, ...], missing: str) -> Observed:
        """Everything that the stack of now owns; children and pods of an earlier stack of its name are left out."""
        stack = self._stacks[key]
        children = {at: child for at, child in self._children.get(key, {}).items() if child.owner == stack.uid}
        manifests = {at: child.manifest for at, child in children.items()}
        return Observed(
            children=manifests,
            pods=tuple(pod for _, (_, pod) in sorted(self._pods.get(key, {}).items())),
            jobs=self._jobs(manifests),
            poll=poll,
            refusals=refusals,
            warnings=self._warned(key[0], children),
            missing=missing,
        )

    def seen(self, resource: Resource, raw: Manifest) -> Key | None:
        """An object as an event, a list or the answer of a write shows it."""
        if resource == EVENTS:
            return self._warn(strip.warned(raw), raw["metadata"]["namespace"])
        address, version = _address(resource, raw), version_of(raw["metadata"].get("resourceVersion"))
        if version <= max(self._versions.get(address, -1), self._listing.get(resource.kind, {}).get(address, -1)):
            return None
        key = _key(resource, raw)
        if key is None:
            return None
        self._versions[address], self._owners[address] = version, key
        return key if self._keep(resource, key, raw, version) else None

    def gone(self, resource: Resource, raw: Manifest) -> Key | None:
        """An object that was deleted, or is selected no more; `raw` is its last state."""
        if resource == EVENTS:
            return None  # old warnings are dropped with what they warn of
        address = _address(resource, raw)
        if resource.kind in self._listing:
            self._listing[resource.kind][address] = version_of(raw["metadata"].get("resourceVersion"))
        return self._drop(resource, address)

    def begin_list(self, resource: Resource) -> None:
        """A list is about to be read: what is deleted from now on must not come back by it."""
        self._listing[resource.kind] = {}

    def end_list(self, resource: Resource, namespace: str | None, names: set[tuple[str, str]], version: str) -> list[Key]:
        """The list held these (namespace, name), and is of that version: drop the rest, unless it is younger."""
        self._listing.pop(resource.kind, None)
        gone = [
            address
            for address, seen in self._versions.items()
            if address[0] == resource.kind
            and (namespace is None or address[1] == namespace)
            and address[1:] not in names
            and seen <= version_of(version)
        ]
        return [key for address in gone if (key := self._drop(resource, address)) is not None]

    def _keep(self, resource: Resource, key: Key, raw: Manifest, version: int) -> bool:
        name = raw["metadata"]["name"]
        if resource == STACKS:
            self._stacks[key] = strip.stack(raw)
        elif resource == PODS:
            pod = strip.pod(raw)
            if pod is None:
                return False
            pods = self._pods.setdefault(key, {})
            before = pods.get(name)
            pods[name] = version, pod
            return before is None or before[1] != pod
        else:
            self._keep_child(key, (resource.kind, name), raw, version)
        return True

    def _keep_child(self, key: Key, at: tuple[str, str], raw: Manifest, version: int) -> None:
        metadata, children = raw["metadata"], self._children.setdefault(key, {})
        before = children.get(at)
        if before is not None and before.generation != metadata.get("generation", 0):
            self._warnings.pop((at[0], key[0], at[1]), None)  # they spoke of what it was
        children[at] = Child(
            uid=metadata["uid"],
            owner=strip.owner(raw)[1],
            version=version,
            generation=metadata.get("generation", 0),
            deleting="deletionTimestamp" in metadata,
            owned=managed.digest(managed.owned(raw)),
            text=zlib.compress(msgspec.json.encode(strip.child(raw)), 1),
        )

    def _drop(self, resource: Resource, address: Address) -> Key | None:
        kind, _, name = address
        self._versions.pop(address, None)
        key = self._owners.pop(address, None)
        if key is None:
            return None
        if resource == STACKS:
            self._stacks.pop(key, None)
        elif resource == PODS:
            self._forget(self._pods, key, name)
        else:
            self._warnings.pop(address, None)
            self._forget(self._children, key, (kind, name))
        return key

    @staticmethod
    def _forget(book: dict[Key, dict[A, B]], key: Key, at: A) -> None:
        held = book.get(key, {})
        held.pop(at, None)
        if not held:
            book.pop(key, None)

    def _warn(self, event: strip.Warned, namespace: str) -> Key | None:
        if event.kind not in CHILDREN:
            return None
        address = (event.kind, namespace, event.name)
        kept = [each for each in self._warnings.get(address, []) if each.reason != event.reason]
        self._warnings[address] = sorted([*kept, event], key=lambda each: each.at)[-MOST_WARNINGS:]
        self._warnings.move_to_end(address)
        if len(self._warnings) > MOST_WARNED:
            self._warnings.popitem(last=False)
        return self._owners.get(address)

    def _warned(self, namespace: str, children: Mapping[tuple[str, str], Child]) -> tuple[tuple[str, str], ...]:
        warnings = [
            event
            for (kind, name), child in children.items()
            for event in self._warnings.get((kind, namespace, name), [])
            if event.uid == child.uid
        ]
        return tuple((event.reason, event.message) for event in sorted(warnings, key=lambda each: -each.at))

    @staticmethod
    def _jobs(manifests: Mapping[tuple[str, str], Manifest]) -> tuple[Job, ...]:
        jobs = [strip.job(manifest) for (kind, _), manifest in manifests.items() if kind == "RayJob"]
        return tuple(sorted(jobs, key=lambda job: job.attempt))


def _address(resource: Resource, raw: Manifest) -> Address:
    return resource.kind, raw["metadata"]["namespace"], raw["metadata"]["name"]


def _key(resource: Resource, raw: Manifest) -> Key | None:
    """The stack that an object belongs to by its label; always one of its own namespace."""
    metadata = raw["metadata"]
    name = metadata["name"] if resource == STACKS else (metadata.get("labels") or {}).get(STACK_LABEL)
    return (metadata["namespace"], name) if name else None
