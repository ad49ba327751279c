"""The mode in which this process runs things, and the device groups that it knows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from twinkle.errors import ConfigError
from twinkle.infra.device_group import DeviceGroup


@dataclass(frozen=True, slots=True)
class Runtime:
    """Mode ("local": everything in the calling process) and device groups by name."""

    mode: str = "local"
    groups: Mapping[str, DeviceGroup] = field(default_factory=lambda: MappingProxyType({}))

    def group(self, name: str) -> DeviceGroup:
        """The group of that name; an unknown one is a ConfigError that lists the known ones."""
        if name not in self.groups:
            known = ", ".join(map(repr, self.groups)) or "none: call twinkle.initialize('local', groups=[...]) first"
            raise ConfigError(f"unknown device group {name!r}; known groups: {known}")
        return self.groups[name]


_runtime = Runtime()


def initialize(mode: str = "local", *, groups: Iterable[DeviceGroup] = ()) -> Runtime:
    """Set the mode and the device groups of this process; a later call replaces an earlier one.

    "local" runs everything in the calling process, so that each group has one rank. Anything that cannot be honoured is
    a ConfigError and leaves the previous runtime as it was.
    """
    global _runtime
    if mode != "local":
        raise ConfigError(f"mode is {mode!r}; this version runs samplers on one machine in mode 'local' only")
    _runtime = Runtime(mode, MappingProxyType(_by_name(groups)))
    return _runtime


def current_runtime() -> Runtime:
    """What the last ``initialize`` set; local mode without groups before that."""
    return _runtime


def _by_name(groups: Iterable[DeviceGroup]) -> dict[str, DeviceGroup]:
    by_name: dict[str, DeviceGroup] = {}
    for group in groups:
        if not isinstance(group, DeviceGroup):
            raise ConfigError(f"groups holds {group!r}; it must hold DeviceGroup objects")
        if group.name in by_name:
            raise ConfigError(f"two device groups are named {group.name!r}; names must differ")
        if group.ranks != 1:
            raise ConfigError(
                f"device group {group.name!r} has {group.ranks} ranks; mode 'local' runs 1 rank per group"
            )
        by_name[group.name] = group
    return by_name
