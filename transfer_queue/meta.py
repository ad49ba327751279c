"""`BatchMeta`: which rows a producer put or a consumer was given, without their values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class SampleMeta:
    """One row: its global index, unique in the queue's life, its step and its group (the samples of one prompt)."""

    global_index: int
    global_step: int
    group_id: str | int


class BatchMeta(msgspec.Struct, frozen=True):
    """Rows in order; plain data that may be sent to another process.

    `lease` is the id to `ack` with, or None; `dp_rank` the rank whose slice this is. `global_steps` and `group_ids`
    are parallel to `global_indexes`.
    """

    global_indexes: list[int]
    fields: list[str]
    global_steps: list[int]
    group_ids: list[str | int]
    task_name: str | None = None
    lease: int | None = None
    dp_rank: int | None = None

    def __len__(self) -> int:
        return len(self.global_indexes)

    @property
    def samples(self) -> list[SampleMeta]:
        """The rows one by one."""
        rows = zip(self.global_indexes, self.global_steps, self.group_ids, strict=True)
        return [SampleMeta(*row) for row in rows]

    @property
    def global_step(self) -> int | None:
        """The step of all rows, or None where they are of several."""
        steps = set(self.global_steps)
        return steps.pop() if len(steps) == 1 else None

    def first(self, rows: int) -> BatchMeta:
        """The first `rows` rows, to look at: without the lease, which is for all of them."""
        return msgspec.structs.replace(
            self,
            global_indexes=self.global_indexes[:rows],
            global_steps=self.global_steps[:rows],
            group_ids=self.group_ids[:rows],
            lease=None,
        )

    def with_fields(self, fields: Iterable[str]) -> BatchMeta:
        """The same rows, with these fields too."""
        return msgspec.structs.replace(self, fields=list(dict.fromkeys([*self.fields, *fields])))
