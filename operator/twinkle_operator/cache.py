"""What the operator has seen, of every stack; one stack of it is the `Observed` of a plan.

Events and lists may come late, twice or out of order: of two states of an object the one with the higher
resourceVersion stays. Events come from a thread of their own, so every method holds one lock.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from twinkle_operator import managed, strip
from twinkle_operator.observed import Cluster, Job, Observed, Pod, Poll, Refusal, Stack
from twinkle_operator.resources import (
    CHILDREN,
    CLUSTERS,
    EVENTS,
    JOBS,
    PODS,
    POLICIES,
    STACKS,
    Key,
    Manifest,
    Resource,
    version_of,
)
from twinkle_operator.words import STACK_LABEL

MOST_WARNINGS = 8
"""Of one child."""
MOST_WARNED = 4096
"""Children whose warnings are kept, the newest."""

A = TypeVar("A", bound=Hashable)
B = TypeVar("B")

VIEWS: dict[str, Callable[[Manifest], Cluster | Job | None]] = {
    CLUSTERS.kind: strip.cluster,
    JOBS.kind: strip.job,
    POLICIES.kind: lambda _: None,
}

Address = tuple[str, str, str]
"""Kind, namespace and name."""


class Child(NamedTuple):
    """A child as last seen: `owner` is the uid of its stack, `owned` the digest of the fields that are ours."""

    uid: str
    owner: str
    generation: int
    deleting: bool
    owned: bytes
    view: Cluster | Job | None


class Cache:
    """All stacks and what belongs to them. Methods that take an object return the stack whose view changed, or None."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stacks: dict[Key, Stack] = {}
        self._children: dict[Key, dict[tuple[str, str], Child]] = {}
        self._pods: dict[Key, dict[str, tuple[str, Pod]]] = {}
        self._warnings: OrderedDict[Address, list[strip.Warned]] = OrderedDict()
        self._versions: dict[Address, int] = {}
        self._owners: dict[Address, Key] = {}
        self._listing: dict[str, dict[Address, int]] = {}
        self._readers: Counter[str] = Counter()

    def stacks(self) -> list[Stack]:
        """All of them, as last seen."""
        with self._lock:
            return list(self._stacks.values())

    def stack(self, key: Key) -> Stack | None:
        """As last seen."""
        return self._stacks.get(key)

    def child(self, key: Key, kind: str, name: str) -> Child | None:
        """As last seen, whoever owns it."""
        return self._children.get(key, {}).get((kind, name))

    def cluster_name(self, stack: Stack) -> str:
        """Name of the RayCluster that the stack owns; empty if it has none, or one that is being deleted."""
        with self._lock:
            children = self._children.get((stack.namespace, stack.name), {})
            names = [
                name
                for (kind, name), child in children.items()
                if kind == CLUSTERS.kind and child.owner == stack.uid and not child.deleting
            ]
            return names[0] if names else ""

    def observe(self, stack: Stack, poll: Poll | None, refusals: tuple[Refusal, ...], missing: str) -> Observed:
        """Everything that this very stack owns; children and pods of an earlier one of its name are left out."""
        key = stack.namespace, stack.name
        with self._lock:
            children = {at: child for at, child in self._children.get(key, {}).items() if child.owner == stack.uid}
            views = [child.view for child in children.values()]
            clusters = [view for view in views if isinstance(view, Cluster)]
            of = {cluster.uid for cluster in clusters}
            return Observed(
                cluster=clusters[0] if clusters else None,
                pods=tuple(pod for _, (owner, pod) in sorted(self._pods.get(key, {}).items()) if owner in of),
                jobs=tuple(sorted((view for view in views if isinstance(view, Job)), key=lambda job: job.attempt)),
                poll=poll,
                refusals=refusals,
                warnings=self._warned(stack.namespace, children),
                missing=missing,
            )

    def seen(self, resource: Resource, raw: Manifest) -> Key | None:
        """An object as an event, a list or the answer of a write shows it."""
        with self._lock:
            if resource == EVENTS:
                return self._warn(strip.warned(raw), raw["metadata"]["namespace"])
            address, version = _address(resource, raw), version_of(raw["metadata"].get("resourceVersion"))
            deleted = self._listing.get(resource.kind, {}).get(address, -1)
            key = _key(resource, raw)
            if key is None or version <= max(self._versions.get(address, -1), deleted):
                return None
            self._versions[address], self._owners[address] = version, key
            return key if self._keep(resource, key, raw) else None

    def gone(self, resource: Resource, raw: Manifest) -> Key | None:
        """An object that was deleted, or is selected no more; `raw` is its last state."""
        if resource == EVENTS:
            return None  # old warnings are dropped with what they warn of
        address, version = _address(resource, raw), version_of(raw["metadata"].get("resourceVersion"))
        with self._lock:
            if resource.kind in self._listing:
                self._listing[resource.kind][address] = version
            return self._drop(resource, address) if version >= self._versions.get(address, 0) else None

    def removed(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """The server says that the child of that uid is no more."""
        address = (resource.kind, namespace, name)
        with self._lock:
            key = self._owners.get(address)
            child = self.child(key, resource.kind, name) if key else None
            if child is not None and child.uid == uid:
                self._drop(resource, address)

    def begin_list(self, resource: Resource) -> None:
        """A list is about to be read: what is deleted from now on must not come back by it, nor by another one."""
        with self._lock:
            self._readers[resource.kind] += 1
            self._listing.setdefault(resource.kind, {})

    def end_list(
        self, resource: Resource, namespace: str | None, names: set[tuple[str, str]], version: str
    ) -> set[Key]:
        """The list held these (namespace, name), and is of that version: drop the rest, unless it is younger."""
        with self._lock:
            self._readers[resource.kind] -= 1
            if not self._readers[resource.kind]:
                self._listing.pop(resource.kind, None)
            gone = [
                address
                for address, seen in self._versions.items()
                if address[0] == resource.kind
                and namespace in (None, address[1])
                and address[1:] not in names
                and seen <= version_of(version)
            ]
            return {key for address in gone if (key := self._drop(resource, address)) is not None}

    def _keep(self, resource: Resource, key: Key, raw: Manifest) -> bool:
        name = raw["metadata"]["name"]
        if resource == STACKS:
            before, now = self._stacks.get(key), strip.stack(raw)
            self._stacks[key] = now
            return before is None or msgspec.structs.replace(before, resource_version=now.resource_version) != now
        if resource == PODS:
            pod = strip.pod(raw)
            return pod is not None and self._put(self._pods, key, name, (strip.owner(raw)[1], pod))
        return self._keep_child(key, (resource.kind, name), raw)

    def _keep_child(self, key: Key, at: tuple[str, str], raw: Manifest) -> bool:
        metadata = raw["metadata"]
        before = self._children.get(key, {}).get(at)
        if before is not None and before.generation != metadata.get("generation", 0):
            self._warnings.pop((at[0], key[0], at[1]), None)  # they spoke of what it was
        now = Child(
            uid=metadata["uid"],
            owner=strip.owner(raw)[1],
            generation=metadata.get("generation", 0),
            deleting="deletionTimestamp" in metadata,
            owned=managed.digest(managed.owned(raw)),
            view=VIEWS[at[0]](raw),
        )
        return self._put(self._children, key, at, now)

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
    def _put(book: dict[Key, dict[A, B]], key: Key, at: A, value: B) -> bool:
        held = book.setdefault(key, {})
        before, held[at] = held.get(at), value
        return before != value

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


def _address(resource: Resource, raw: Manifest) -> Address:
    return resource.kind, raw["metadata"]["namespace"], raw["metadata"]["name"]


def _key(resource: Resource, raw: Manifest) -> Key | None:
    """The stack that an object belongs to by its label; always one of its own namespace."""
    metadata = raw["metadata"]
    name = metadata["name"] if resource == STACKS else (metadata.get("labels") or {}).get(STACK_LABEL)
    return (metadata["namespace"], name) if name else None
