"""Ranks of one kind, under a name."""

from dataclasses import dataclass

from twinkle.errors import ConfigError

DEVICE_TYPES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """``ranks`` processes with one device of ``device_type`` ("cpu" or "cuda") each, addressed by ``name``."""

    name: str
    ranks: int
    device_type: str

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ConfigError(f"DeviceGroup.name is {self.name!r}; it must be a string that is not empty")
        require_size(f"DeviceGroup.ranks of {self.name!r}", self.ranks)
        if self.device_type not in DEVICE_TYPES:
            raise ConfigError(
                f"DeviceGroup.device_type of {self.name!r} is {self.device_type!r}; it must be one of {DEVICE_TYPES}"
            )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def require_size(what: str, value: object) -> None:
    """A ConfigError unless the value is an integer >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{what} is {value!r}; it must be an integer >= 1")
