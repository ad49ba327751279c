"""How the ranks of one device group are arranged."""

import math
from dataclasses import dataclass, fields, replace
from typing import Self

from twinkle.errors import ConfigError
from twinkle.infra.device_group import require_size


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMesh:
    """A grid of ranks 0 .. world_size - 1 with the axes dp, fsdp, pp, cp, ep, tp, each of size 1 unless given.

    Ranks are numbered with the last axis fastest, so that the ranks that hold one model together (pp, cp, ep, tp) are
    consecutive, and tensor-parallel neighbours differ by one.
    """

    dp_size: int = 1
    fsdp_size: int = 1
    pp_size: int = 1
    cp_size: int = 1
    ep_size: int = 1
    tp_size: int = 1

    def __post_init__(self) -> None:
        for axis, size in self._sizes():
            require_size(f"DeviceMesh.{axis}_size", size)

    @classmethod
    def from_sizes(
        cls,
        *,
        dp_size: int = 1,
        fsdp_size: int = 1,
        tp_size: int = 1,
        pp_size: int = 1,
        cp_size: int = 1,
        ep_size: int = 1,
    ) -> Self:
        """A mesh of the given sizes; a size that is no integer >= 1 is a ConfigError that names it."""
        return cls(
            dp_size=dp_size, fsdp_size=fsdp_size, pp_size=pp_size, cp_size=cp_size, ep_size=ep_size, tp_size=tp_size
        )

    @property
    def world_size(self) -> int:
        """The number of ranks, i.e. the product of all sizes."""
        return math.prod(size for _, size in self._sizes())

    @property
    def data_size(self) -> int:
        """The number of parts into which data is split: dp_size * fsdp_size."""
        return self.dp_size * self.fsdp_size

    @property
    def model_size(self) -> int:
        """The number of ranks that hold one model together: pp_size * cp_size * ep_size * tp_size."""
        return self.world_size // self.data_size

    @property
    def replica(self) -> Self:
        """The mesh of one data-parallel replica: the same model axes, dp and fsdp of size 1."""
        return replace(self, dp_size=1, fsdp_size=1)

    def model_ranks(self, data_rank: int) -> range:
        """The ranks that hold the model which works on one part of the data."""
        if not 0 <= data_rank < self.data_size:
            raise ConfigError(f"data_rank is {data_rank!r}; this mesh has the parts 0 to {self.data_size - 1}")
        return range(data_rank * self.model_size, (data_rank + 1) * self.model_size)

    def output_rank(self, data_rank: int) -> int:
        """The one of ``model_ranks`` whose results count: the first of the last pipeline stage, where outputs arise."""
        return self.model_ranks(data_rank)[(self.pp_size - 1) * self.model_size // self.pp_size]

    def __str__(self) -> str:
        """The axes longer than 1, e.g. "dp=2 tp=2 (4 ranks)"."""
        axes = " ".join(f"{axis}={size}" for axis, size in self._sizes() if size > 1)
        return f"{axes or 'dp=1'} ({self.world_size} rank{'s' if self.world_size > 1 else ''})"

    def coordinates(self, rank: int) -> dict[str, int]:
        """Position of a rank on each axis, by the axis' name."""
        if not 0 <= rank < self.world_size:
            raise ConfigError(f"rank is {rank!r}; this mesh has the ranks 0 to {self.world_size - 1}")
        position = {}
        for axis, size in reversed(self._sizes()):
            rank, position[axis] = divmod(rank, size)
        return dict(reversed(position.items()))

    def rank_at(self, **coordinates: int) -> int:
        """The rank at a position; axes that are not named are at 0. The inverse of ``coordinates``."""
        rank = 0
        for axis, size in self._sizes():
            at = coordinates.pop(axis, 0)
            if not 0 <= at < size:
                raise ConfigError(f"coordinate {axis} is {at!r}; {axis}_size is {size}, so it must be 0 to {size - 1}")
            rank = rank * size + at
        if coordinates:
            known = [axis for axis, _ in self._sizes()]
            raise ConfigError(f"unknown mesh axis {next(iter(coordinates))!r}; the axes are {known}")
        return rank

    def dp_rank(self, rank: int) -> int:
        """Position of a rank on the dp axis; tensor-parallel peers share it."""
        return self.coordinates(rank)["dp"]

    def fsdp_rank(self, rank: int) -> int:
        """Position of a rank on the fsdp axis."""
        return self.coordinates(rank)["fsdp"]

    def pp_rank(self, rank: int) -> int:
        """Position of a rank on the pp axis."""
        return self.coordinates(rank)["pp"]

    def cp_rank(self, rank: int) -> int:
        """Position of a rank on the cp axis."""
        return self.coordinates(rank)["cp"]

    def ep_rank(self, rank: int) -> int:
        """Position of a rank on the ep axis."""
        return self.coordinates(rank)["ep"]

    def tp_rank(self, rank: int) -> int:
        """Position of a rank on the tp axis."""
        return self.coordinates(rank)["tp"]

    def data_rank(self, rank: int) -> int:
        """Which of the ``data_size`` parts of the data a rank works on; in order of ranks, shared by model peers."""
        position = self.coordinates(rank)
        return position["dp"] * self.fsdp_size + position["fsdp"]

    def sizes(self) -> dict[str, int]:
        """The size of each axis, slowest first."""
        return dict(self._sizes())

    def _sizes(self) -> list[tuple[str, int]]:
        return [(field.name.removesuffix("_size"), getattr(self, field.name)) for field in fields(self)]
