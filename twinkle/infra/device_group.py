"""Ranks of one kind, under a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from twinkle.errors import ConfigError

RESOURCES = {"cuda": "GPU", "npu": "NPU"}
"""What Ray calls the devices of a type; a rank on "cpu" has none."""
DEVICE_TYPES = ("cpu", *RESOURCES)


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """``ranks`` ranks with one device of ``device_type`` ("cpu", "cuda" or "npu") each, addressed by ``name``.

    Attributes:
        ranks_per_node: put exactly so many ranks on each node, every so many on a node of their own. None: as few
            nodes as the cluster allows.
        cpus_per_rank: CPUs that each rank takes from Ray's schedule beside its device. None: 1 on "cpu", 0 on the
            others. 0 on "cpu" lets any number of ranks share a small machine.
        label_selector: labels that a node of this group must bear, as Ray's ``bundle_label_selector`` reads them.
    """

    name: str
    ranks: int
    device_type: str
    ranks_per_node: int | None = None
    cpus_per_rank: int | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ConfigError(f"DeviceGroup.name is {self.name!r}; it must be a string that is not empty")
        require_size(f"DeviceGroup.ranks of {self.name!r}", self.ranks)
        if self.device_type not in DEVICE_TYPES:
            raise ConfigError(
                f"DeviceGroup.device_type of {self.name!r} is {self.device_type!r}; it must be one of {DEVICE_TYPES}"
            )
        if self.cpus_per_rank is not None:
            require_size(f"DeviceGroup.cpus_per_rank of {self.name!r}", self.cpus_per_rank, at_least=0)
        self._check_nodes()

    def _check_nodes(self) -> None:
        if self.ranks_per_node is not None:
            require_size(f"DeviceGroup.ranks_per_node of {self.name!r}", self.ranks_per_node)
            if self.ranks % self.ranks_per_node:
                raise ConfigError(
                    f"DeviceGroup.ranks_per_node of {self.name!r} is {self.ranks_per_node}; it must divide its "
                    f"{self.ranks} ranks"
                )
        labels = self.label_selector
        if not _is_mapping(labels) or not all(map(_is_name, [*labels, *labels.values()])):
            raise ConfigError(
                f"DeviceGroup.label_selector of {self.name!r} is {labels!r}; it must map label names to values, "
                "e.g. {'pool': 'sampler'}"
            )

    def resources(self, ranks: int) -> dict[str, float]:
        """What Ray has to set apart for so many ranks: whole devices and CPUs; nothing when they need neither."""
        cpus = self.cpus_per_rank
        if cpus is None:
            cpus = 1 if self.device_type == "cpu" else 0
        wanted = {"CPU": float(cpus * ranks)}
        if self.device_type in RESOURCES:
            wanted[RESOURCES[self.device_type]] = float(ranks)
        return {name: amount for name, amount in wanted.items() if amount}


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def require_size(what: str, value: object, at_least: int = 1) -> None:
    """A ConfigError unless the value is an integer >= ``at_least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"{what} is {value!r}; it must be an integer >= {at_least}")
