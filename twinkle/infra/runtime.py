"""The mode in which this process runs things, and the device groups that it knows."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.extras import RAY_EXTRA, require
from twinkle.infra.device_aliases import aliases_in, with_aliases
from twinkle.infra.device_group import DeviceGroup

if TYPE_CHECKING:
    from twinkle.infra.cluster import Cluster

MODES = ["local", "ray"]
PLACE_S = 60.0
CALL_S = 3600.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Mode ("local": everything in the calling process), device groups by name, and in mode "ray" the cluster."""

    mode: str = "local"
    groups: Mapping[str, DeviceGroup] = field(default_factory=lambda: MappingProxyType({}))
    cluster: "Cluster | None" = field(default=None, compare=False, repr=False)

    def group(self, name: str) -> DeviceGroup:
        """The group of that name; an unknown one is a ConfigError that lists the known ones."""
        if name not in self.groups:
            first = f"none: call twinkle.initialize({self.mode!r}, groups=[...]) first"
            known = ", ".join(map(repr, self.groups)) or first
            raise ConfigError(f"unknown device group {name!r}; known groups: {known}")
        return self.groups[name]


_runtime = Runtime()


def initialize(
    mode: str = "local",
    groups: Iterable[DeviceGroup] = (),
    *,
    address: str | None = None,
    timeout_s: float = PLACE_S,
    call_timeout_s: float = CALL_S,
    env: Mapping[str, str] | None = None,
) -> Runtime:
    """Set the mode and the device groups of this process; a later call replaces an earlier one.

    "local" runs everything in the calling process, so that each group has one rank. "ray" sets the ranks of every group
    apart in a Ray cluster: the one that this process is connected to already, that of ``address`` or RAY_ADDRESS, or
    else a new one on this machine, which ends with this process. Objects of an earlier "ray" live on until they are
    closed; "local" closes them. ``TWINKLE_DEVICE_ALIASES=cuda:cpu`` moves the groups of a device type to another.

    Args:
        address: of a running Ray cluster ("host:port", or "auto" for the one on this machine).
        timeout_s: how long ranks may take to be set apart.
        call_timeout_s: deadline of a remote call that declares none.
        env: variables for the actors, besides this process's ``TWINKLE_*``, which they get anyway.

    Anything that cannot be honoured, such as ranks that the cluster has not got, is a ConfigError that leaves nothing
    behind and the previous runtime as it was.
    """
    global _runtime
    one_of("mode", mode, MODES)
    _require_seconds(timeout_s=timeout_s, call_timeout_s=call_timeout_s)
    by_name = {each.name: each for each in with_aliases(_by_name(groups).values(), aliases_in(os.environ))}
    if mode == "local":
        _require_one_rank(by_name.values())
        previous, _runtime = _runtime, Runtime(mode, MappingProxyType(by_name))
        if previous.cluster is not None:
            previous.cluster.close()
        return _runtime
    require("ray", 'the mode "ray"', RAY_EXTRA)
    from twinkle.infra.cluster import open_cluster

    cluster = open_cluster(_runtime.cluster, by_name, address, timeout_s, call_timeout_s, dict(env or {}))
    return set_runtime(Runtime(mode, MappingProxyType(by_name), cluster))


def current_runtime() -> Runtime:
    """What the last ``initialize`` set; local mode without groups before that."""
    return _runtime


def set_runtime(runtime: Runtime) -> Runtime:
    """Make this the runtime of the process, as actors do; the same."""
    global _runtime
    _runtime = runtime
    return runtime


def _require_seconds(**deadlines: float) -> None:
    for name, seconds in deadlines.items():
        if not seconds > 0:
            raise ConfigError(f"{name} of initialize is {seconds!r}; it must be a number of seconds > 0")


def _by_name(groups: Iterable[DeviceGroup]) -> dict[str, DeviceGroup]:
    by_name: dict[str, DeviceGroup] = {}
    for group in groups:
        if not isinstance(group, DeviceGroup):
            raise ConfigError(f"groups holds {group!r}; it must hold DeviceGroup objects")
        if group.name in by_name:
            raise ConfigError(f"two device groups are named {group.name!r}; names must differ")
        by_name[group.name] = group
    return by_name


def _require_one_rank(groups: Iterable[DeviceGroup]) -> None:
    for group in groups:
        if group.ranks != 1:
            raise ConfigError(
                f"device group {group.name!r} has {group.ranks} ranks; mode 'local' runs 1 rank per group, "
                "twinkle.initialize('ray', groups=[...]) any number"
            )
