"""What a consumer asks for and what it is given: plain values, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transfer_queue.errors import ConfigurationError, DPGroupError, FieldError, GroupError, SamplerError, nearest
from transfer_queue.ledger.shape import QueueShape

DP_KEYS = ("dp_rank", "dp_size", "dp_group_id")


@dataclass(frozen=True, slots=True)
class DPPlace:
    """One rank's place in a data-parallel group."""

    rank: int
    size: int
    group_id: str | int


@dataclass(frozen=True, slots=True)
class Want:
    """One `get_meta`: `batch_size` rows per rank of `task`, with `fields`, of step `step` (None: of every step).

    `lease_s=None` consumes at once; `patience_s` is how long the caller waits.
    """

    task: str
    fields: tuple[str, ...]
    batch_size: int
    step: int | None = None
    whole_groups: bool = False
    dp: DPPlace | None = None
    client: str = ""
    lease_s: float | None = None
    patience_s: float = 300.0

    @property
    def needed(self) -> int:
        """Rows that must be ready together: those of all ranks."""
        return self.batch_size * (self.dp.size if self.dp else 1)

    def check(self, shape: QueueShape) -> None:
        """An error that names argument and value, if this can never work with a queue of that shape."""
        if not self.task:
            raise FieldError("task_name is missing: rows are consumed once per task, so each consumer needs a name")
        if not self.fields:
            raise FieldError(f"get_meta of task {self.task!r} names no data_fields: name at least one")
        if self.step is not None and self.step < 0:
            raise FieldError(f"global_step={self.step} is negative: there are no such rows")
        if self.batch_size < 1:
            raise GroupError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.whole_groups and self.batch_size % shape.num_n_samples:
            raise GroupError(
                f"batch_size={self.batch_size} is not divisible by num_n_samples={shape.num_n_samples}: "
                f"task {self.task!r} takes whole groups; ask for a multiple of {shape.num_n_samples} rows"
            )
        check_seconds("timeout_s", self.patience_s)
        if self.lease_s is not None:
            check_seconds("lease_s", self.lease_s)


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows that a consumer was given: global indexes in order, and its lease on them, if it asked for one.

    `voted`: without a lease, being given its slice was this DP rank's vote, and its first.
    """

    indexes: list[int]
    lease_id: int | None = None
    lease_deadline: float | None = None
    voted: bool = field(default=False, compare=False)


def check_seconds(name: str, seconds: float) -> None:
    """`ConfigurationError` unless the duration is a number, finite and not negative."""
    given: object = seconds
    if not isinstance(given, int | float) or not 0 <= given < 1e9:
        raise ConfigurationError(f"{name}={seconds} is out of range: it is a finite number of seconds, not negative")


def dp_place(params: Mapping[str, Any]) -> DPPlace | None:
    """The DP place in these sampler parameters, or None; `DPGroupError` if it is incomplete or out of range."""
    given = [key for key in DP_KEYS if params.get(key) is not None]
    if not given:
        return None
    missing = [key for key in DP_KEYS if key not in given]
    if missing:
        raise DPGroupError(
            f"sampler_params has {', '.join(given)} but no {', '.join(missing)}; ranks that share a batch pass "
            "dp_rank, dp_size and one dp_group_id"
        )
    rank, size, group_id = (params[key] for key in DP_KEYS)
    check_rank("dp_rank", rank, "dp_size", size)
    if not isinstance(group_id, str | int):
        raise DPGroupError(f"dp_group_id must be a string or a whole number, not {group_id!r}")
    return DPPlace(rank, size, group_id)


def check_rank(rank_name: str, rank: object, size_name: str, size: object) -> None:
    """`DPGroupError` unless both are whole numbers and 0 <= rank < size."""
    for name, value in ((rank_name, rank), (size_name, size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise DPGroupError(f"{name} must be a whole number, not {value!r}")
    assert isinstance(rank, int)
    assert isinstance(size, int)
    if size < 1:
        raise DPGroupError(f"{size_name} must be at least 1, not {size}")
    if not 0 <= rank < size:
        raise DPGroupError(f"{rank_name}={rank} is out of range: {size_name}={size} allows 0 to {size - 1}")


def refuse_unknown(params: Mapping[str, Any]) -> None:
    """The built-in samplers know the DP parameters only: anything else is a `SamplerError` with the nearest name."""
    for key in params:
        if key not in DP_KEYS:
            raise SamplerError(
                f"sampler_params has an unknown key {key!r}{nearest(key, DP_KEYS)}; known: {list(DP_KEYS)}"
            )
