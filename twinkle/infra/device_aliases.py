"""Devices that stand in for others: ``TWINKLE_DEVICE_ALIASES=cuda:cpu`` runs a script's GPU groups on a CPU."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace

from twinkle.errors import ConfigError
from twinkle.infra.device_group import DEVICE_TYPES, DeviceGroup

VARIABLE = "TWINKLE_DEVICE_ALIASES"


def aliases_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Device types and what stands in for them, from ``TWINKLE_DEVICE_ALIASES`` ("cuda:cpu", several by commas)."""
    text = environ.get(VARIABLE, "")
    aliases = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        device, _, stand_in = (part.strip() for part in pair.partition(":"))
        if device not in DEVICE_TYPES or stand_in not in DEVICE_TYPES:
            raise ConfigError(
                f"{VARIABLE} is {text!r}; it must be pairs of {DEVICE_TYPES} like 'cuda:cpu', several joined by commas"
            )
        aliases[device] = stand_in
    return aliases


def with_aliases(groups: Iterable[DeviceGroup], aliases: Mapping[str, str]) -> list[DeviceGroup]:
    """The groups on the devices that stand in for theirs, and one warning if that changes any.

    A stand-in CPU takes no CPUs from Ray's schedule unless ``cpus_per_rank`` says how many, so that a script written
    for many GPUs fits a small machine.
    """
    found = list(groups)
    aliased = [_aliased(group, aliases) for group in found]
    changed = [(old, new) for old, new in zip(found, aliased, strict=True) if old.device_type != new.device_type]
    if changed:
        told = ", ".join(f"{old.name!r} ({old.device_type} on {new.device_type})" for old, new in changed)
        warnings.warn(f"{VARIABLE} moves device groups to other devices: {told}", UserWarning, stacklevel=3)
    return aliased


def _aliased(group: DeviceGroup, aliases: Mapping[str, str]) -> DeviceGroup:
    device = aliases.get(group.device_type, group.device_type)
    if device == group.device_type:
        return group
    cpus = 0 if group.cpus_per_rank is None else group.cpus_per_rank
    return replace(group, device_type=device, cpus_per_rank=cpus)
