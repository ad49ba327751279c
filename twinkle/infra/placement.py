"""Which bundles of resources a device group needs, and which bundle each actor gets: pure, whatever schedules them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinkle.errors import ConfigError
from twinkle.infra.device_group import DeviceGroup

NOTHING = {"memory": 1.0}
"""One byte: Ray takes no empty bundle, and ranks that need neither device nor CPU still need a place."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``bundles`` equal bundles on one node each, for actors of ``ranks_per_actor`` ranks.

    Attributes:
        bundle: resources of one bundle, by Ray's names.
        ranks_per_bundle: a multiple of ``ranks_per_actor``, so that no actor is split.
        strategy: Ray's: "PACK", or "STRICT_SPREAD" when each bundle must have a node of its own.
        labels: what the node of every bundle must bear.
    """

    bundles: int
    bundle: Mapping[str, float]
    ranks_per_bundle: int
    ranks_per_actor: int
    strategy: str
    labels: Mapping[str, str]

    def __str__(self) -> str:
        """What is asked, e.g. "4 x {GPU: 2} on nodes with {pool: sampler}"."""
        asked = f"{self.bundles} x {'{no device, no CPU}' if self.bundle == NOTHING else written(self.bundle)}"
        if self.strategy == "STRICT_SPREAD" and self.bundles > 1:
            asked += ", each on a node of its own,"
        return asked + (f" on nodes with {written(self.labels)}" if self.labels else "")


def plan(group: DeviceGroup, ranks_per_actor: int = 1) -> Plan:
    """The bundles for a group whose actors have so many ranks each.

    A bundle is one actor, or the ranks of one node where the group says how many those are; ConfigError when these
    cannot hold whole actors.
    """
    per_bundle = group.ranks_per_node or ranks_per_actor
    if per_bundle % ranks_per_actor:
        raise ConfigError(
            f"device group {group.name!r} has {per_bundle} ranks per node; replicas of {ranks_per_actor} ranks do not "
            "fit on its nodes in whole numbers"
        )
    if group.ranks % per_bundle:
        raise ConfigError(f"device group {group.name!r} has {group.ranks} ranks; they make no whole {per_bundle}s")
    return Plan(
        bundles=group.ranks // per_bundle,
        bundle=group.resources(per_bundle) or NOTHING,
        ranks_per_bundle=per_bundle,
        ranks_per_actor=ranks_per_actor,
        strategy="PACK" if group.ranks_per_node is None else "STRICT_SPREAD",
        labels=dict(group.label_selector),
    )


def seats(made: Plan, nodes: Sequence[str], together: int = 1) -> list[int]:
    """The bundle of each actor, in order of ranks, given the node of each bundle.

    Neighbouring ranks share a node: runs of ``together`` actors (the ranks of one model) lie on one node wherever the
    nodes have room for whole runs; what is left over comes last, node by node.
    """
    per_node: dict[str, list[int]] = {}
    for bundle, node in enumerate(nodes):
        per_node.setdefault(node, []).extend([bundle] * (made.ranks_per_bundle // made.ranks_per_actor))
    whole, rest = [], []
    for slots in per_node.values():
        cut = len(slots) - len(slots) % together
        whole += slots[:cut]
        rest += slots[cut:]
    return whole + rest


def written(amounts: Mapping[str, object]) -> str:
    """A mapping for a sentence, e.g. "{CPU: 2, GPU: 1}"."""
    shown = {name: int(amount) if isinstance(amount, float) else amount for name, amount in amounts.items()}
    return "{" + ", ".join(f"{name}: {amount}" for name, amount in shown.items()) + "}"
