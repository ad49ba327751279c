"""The Ray cluster behind mode "ray": attached or started, and what of it is set apart for which device group."""

import logging
import os
import secrets
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from twinkle.errors import ConfigError, RanksMissingError
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.garbage import settle
from twinkle.infra.placement import Plan, plan, written
from twinkle.infra.waiting import connection

if TYPE_CHECKING:
    from twinkle.infra.actors import Actors

log = logging.getLogger("twinkle")

SAY_S = 20.0
"""How often somebody who waits for ranks is told what is missing."""


@dataclass(eq=False)
class Reservation:
    """A placement group for a device group, held by one remote object at a time."""

    group: DeviceGroup
    plan: Plan
    bundles: PlacementGroup
    holder: str | None = None

    def nodes(self) -> list[str]:
        """The id of the node of each bundle."""
        where = placement_group_table(self.bundles)["bundles_to_node_id"]
        return [where[index] for index in range(self.plan.bundles)]

    def node_names(self) -> list[str]:
        """The name of the node of each bundle."""
        names = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
        return [names.get(node, node) for node in self.nodes()]


@dataclass(eq=False)
class Cluster:
    """This process's connection to Ray. ``ours``: made here, so that it ends with `close`."""

    ours: bool
    connection: str
    timeout_s: float
    call_timeout_s: float
    env: dict[str, str]
    reserved: dict[str, Reservation] = field(default_factory=dict)
    objects: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def reserve(self, groups: Iterable[DeviceGroup]) -> None:
        """Set apart what the groups need, all or nothing; what other groups had and nobody held is given back."""
        wanted = list(groups)
        self._settle(wanted)
        with self._lock:
            free = [name for name, each in self.reserved.items() if each.holder is None]
            for name in free:
                remove_placement_group(self.reserved.pop(name).bundles)
            for group in wanted:
                known = self.reserved.get(group.name)
                if known is not None and known.group != group:
                    raise ConfigError(
                        f"device group {group.name!r} is held by {known.holder}; close that before asking for a group "
                        "of that name with other settings"
                    )
            new = [(group, plan(group)) for group in wanted if group.name not in self.reserved]
            self.reserved |= {each.group.name: each for each in self._made(new)}

    def claim(self, group: DeviceGroup, wanted: Plan, holder: str) -> Reservation:
        """What is set apart for a group, in bundles as planned; ConfigError when another object holds it."""
        if connection() != self.connection:
            raise ConfigError("the connection to Ray that twinkle.initialize('ray') made has ended; call it again")
        self._settle([group])
        with self._lock:
            known = self.reserved.get(group.name)
            if known is not None and known.holder is not None:
                raise ConfigError(
                    f"device group {group.name!r} is held by {known.holder}; close that first, or give {holder} a "
                    "group of its own"
                )
            if known is None or known.plan != wanted:
                if known is not None:
                    remove_placement_group(self.reserved.pop(group.name).bundles)
                known = self._made([(group, wanted)])[0]
                self.reserved[group.name] = known
            known.holder = holder
            return known

    def _settle(self, groups: Iterable[DeviceGroup]) -> None:
        """Objects that were dropped a moment ago may still hold their groups."""
        if any(group.name in self.reserved and self.reserved[group.name].holder is not None for group in groups):
            settle(self.timeout_s)

    def release(self, reservation: Reservation) -> None:
        """Give back what an object held; every actor in it ends."""
        with self._lock:
            if self.reserved.get(reservation.group.name) is reservation:
                del self.reserved[reservation.group.name]
        if connection() == self.connection:
            remove_placement_group(reservation.bundles)

    def alive(self) -> list["Actors"]:
        """The actors of the objects that this process made and has not closed."""
        return [handle._actors for handle in self.objects if not handle._actors.closed]

    def close(self) -> None:
        """Close every object of this process, give everything back, and disconnect if the connection was made here."""
        for each in list(self.objects):
            each.close()
        for reservation in list(self.reserved.values()):
            self.release(reservation)
        if self.ours and connection() == self.connection:
            ray.shutdown()

    def _made(self, wanted: list[tuple[DeviceGroup, Plan]]) -> list[Reservation]:
        made: list[Reservation] = []
        try:
            made += [Reservation(group, each, _bundles(group, each)) for group, each in wanted]
            self._wait_for(made)
        except BaseException:
            for each in made:
                remove_placement_group(each.bundles)
            raise
        return made

    def _wait_for(self, made: list[Reservation]) -> None:
        """Until the ranks are there; nodes may join meanwhile. In a cluster that others keep, more may come later."""
        ready = {each.bundles.ready(): each for each in made}
        late, began = list(ready), time.monotonic()
        while late:
            left = began + self.timeout_s - time.monotonic()
            if left <= 0:
                kind = ConfigError if self.ours else RanksMissingError
                raise kind(
                    f"{_missing(ready, late)}; the Ray cluster could not give that within {self.timeout_s:g} s; "
                    f"free: {_free()}"
                )
            _, late = ray.wait(list(ready), num_returns=len(ready), timeout=min(SAY_S, left))
            if late and left > SAY_S:
                log.warning("waiting %g s more: %s; free: %s", left - SAY_S, _missing(ready, late), _free())


def open_cluster(
    before: Cluster | None,
    groups: Mapping[str, DeviceGroup],
    address: str | None,
    timeout_s: float,
    call_timeout_s: float,
    env: dict[str, str],
) -> Cluster:
    """Connect, unless an earlier call did, and set apart what the groups need; a failure leaves nothing behind."""
    ours = _connect(address, timeout_s)
    alive = before if before is not None and before.connection == connection() else None
    cluster = Cluster(ours or (alive is not None and alive.ours), connection(), timeout_s, call_timeout_s, env)
    if alive is not None:
        cluster.reserved, cluster.objects, cluster._lock = alive.reserved, alive.objects, alive._lock
    try:
        cluster.reserve(groups.values())
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    return cluster


def _connect(address: str | None, timeout_s: float) -> bool:
    """Whether this call made the connection."""
    if ray.is_initialized():
        _require_same(address)
        return False
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in where:
        raise ConfigError(
            f"the address of the Ray cluster is {where!r}; it must be 'host:port' of its head, given to a process on "
            "one of its machines (such as a job), since actors answer there"
        )
    new: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    if ":" in where:
        _require_reachable(where, timeout_s)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's start-up warns about its own future
            ray.init(address=where, logging_level="WARNING", **new)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no connection to the Ray cluster {where!r}: {error}") from error
    return True


def _require_same(address: str | None) -> None:
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise ConfigError(f"address is {address!r}, but this process is connected to the Ray cluster at {here!r}")


def _require_reachable(where: str, timeout_s: float) -> None:
    """Ray itself waits for minutes where nobody answers, or somebody else does."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {where!r}: {error}") from error
    if os.environ.get("RAY_USE_TLS", "0") != "1":
        with grpc.insecure_channel(where) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=timeout_s)
            except grpc.FutureTimeoutError:
                raise ConfigError(
                    f"what answers at {where!r} did not speak like a Ray head within {timeout_s:g} s; the address is "
                    "that of its GCS, usually port 6379"
                ) from None


def _bundles(group: DeviceGroup, wanted: Plan) -> PlacementGroup:
    labels = [dict(wanted.labels)] * wanted.bundles if wanted.labels else None
    name = f"twinkle {group.name} {secrets.token_hex(4)}"
    bundles = [dict(wanted.bundle)] * wanted.bundles
    try:
        return placement_group(bundles, wanted.strategy, name, bundle_label_selector=labels)
    except ValueError as error:
        raise ConfigError(f"device group {group.name!r} cannot be placed: {error}") from error


def _missing(ready: Mapping[Any, Reservation], late: Iterable[Any]) -> str:
    """The first group that waits, and what others have already."""
    first = ready[next(iter(late))]
    taken = [f"{each.group.name!r} {each.plan}" for ref, each in ready.items() if ref not in late]
    beside = f", beside {', '.join(taken)}" if taken else ""
    return f"device group {first.group.name!r} asks for {first.group.ranks} ranks as {first.plan}{beside}"


def _free() -> str:
    """What each node has free, and its labels, for a sentence."""
    free = ray._private.state.available_resources_per_node()
    told = []
    for node in ray.nodes():
        if node["Alive"]:
            names = [name for name in ("CPU", "GPU", "NPU") if name in node["Resources"]]
            amounts = {
                name: f"{free.get(node['NodeID'], {}).get(name, 0):g} of {node['Resources'][name]:g}" for name in names
            }
            labels = {key: value for key, value in node["Labels"].items() if not key.startswith("ray.io/")}
            text = f"node {node['NodeManagerHostname']} {written(amounts)}"
            told.append(text + (f" with labels {written(labels)}" if labels else ""))
    return "; ".join(told) or "no node is alive"
