"""Which actors stand for which ranks of a mesh: pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from twinkle.infra.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Layout:
    """The actors of a mesh in order of ranks: one a rank, or one a replica that is all of its model's ranks."""

    mesh: DeviceMesh
    whole_replicas: bool

    @property
    def ranks_per_actor(self) -> int:
        """How many ranks one actor is."""
        return self.mesh.model_size if self.whole_replicas else 1

    @property
    def ranks(self) -> list[range]:
        """The ranks of each actor."""
        size = self.ranks_per_actor
        return [range(first, first + size) for first in range(0, self.mesh.world_size, size)]

    @property
    def together(self) -> int:
        """How many neighbouring actors hold one model, and should share a node."""
        return self.mesh.model_size // self.ranks_per_actor

    def peers(self, data_rank: int) -> Sequence[int]:
        """The actors that get a data rank's call."""
        return [data_rank] if self.whole_replicas else self.mesh.model_ranks(data_rank)

    def output(self, data_rank: int) -> int:
        """The one of them whose results count."""
        return data_rank if self.whole_replicas else self.mesh.output_rank(data_rank)

    def name(self, actor: int) -> str:
        """An actor, for a sentence."""
        return named(self.ranks[actor])


def named(ranks: Sequence[int]) -> str:
    """Ranks, for a sentence."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
