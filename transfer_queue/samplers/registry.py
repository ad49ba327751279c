"""Which sampler serves which task, and the DP defaults of callers that pass no sampler_params."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transfer_queue.errors import DPGroupError, GroupError, SamplerLostError
from transfer_queue.ledger.request import DP_KEYS, DPPlace, dp_place, refuse_unknown
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.samplers.balanced import SeqlenBalancedSampler
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.built_in import DPSampler, GRPOSampler, SequentialSampler
from transfer_queue.samplers.staleness import StalenessFilter

BUILT_IN = (SequentialSampler, GRPOSampler, DPSampler)


@dataclass(frozen=True, slots=True)
class Choice:
    """How one request is served: by the ledger's own path, or by a `custom` sampler with `params`."""

    whole_groups: bool
    dp: DPPlace | None
    default_dp: DPSampler | None
    custom: BaseSampler | None
    params: dict[str, Any]


class SamplerRegistry:
    """The default sampler, one per task, and the DP ranks that were registered instead of passed."""

    def __init__(self, shape: QueueShape) -> None:
        self.shape = shape
        self._default: BaseSampler = SequentialSampler()
        self._tasks: dict[str, BaseSampler] = {}
        self._ranks: dict[tuple[str | None, str | None], list[DPSampler]] = {}
        self._lost: dict[str | None, str] = {}

    def register(self, sampler: BaseSampler, task: str | None = None, client: str | None = None) -> None:
        """Let `sampler` serve a task (None: every task without its own).

        A `DPSampler` changes no selection: it gives `client` (None: every caller) its default DP parameters. Further
        ranks of the same size may register, another size is a `DPGroupError`.
        """
        self._check_group_size(sampler)
        self._lost.pop(task, None)
        if type(sampler) is DPSampler:
            self._register_rank(sampler, task, client)
        elif task is None:
            self._default = sampler
        else:
            self._tasks[task] = sampler

    def _check_group_size(self, sampler: BaseSampler) -> None:
        inner = sampler
        while isinstance(inner, StalenessFilter):
            inner = inner.inner
        if not isinstance(inner, GRPOSampler | SeqlenBalancedSampler) or not inner.whole_groups:
            return
        if inner.num_n_samples != self.shape.num_n_samples:
            raise GroupError(
                f"{sampler!r} does not fit a controller with num_n_samples={self.shape.num_n_samples}: "
                f"a group is the {self.shape.num_n_samples} rows of one prompt"
            )

    def lose(self, task: str | None, why: str) -> None:
        """The sampler that was registered for the task cannot be made again: the task refuses until another is."""
        self._lost[task] = why

    def lost_of(self, task: str) -> str:
        """Why this task refuses; empty if it does not."""
        why = self._lost.get(task) or (self._lost.get(None) if task not in self._tasks else None)
        return f"its sampler did not survive the controller's restart ({why}): register it again" if why else ""

    def _refuse_lost(self, task: str) -> None:
        why = self.lost_of(task)
        if why:
            raise SamplerLostError(f"task {task!r} cannot be served: {why}")

    def _register_rank(self, sampler: DPSampler, task: str | None, client: str | None) -> None:
        for (other, _), known in self._ranks.items():
            if other == task and known[0].dp_size != sampler.dp_size:
                raise DPGroupError(
                    f"task {task!r} has DP ranks with dp_size={known[0].dp_size}; {sampler!r} says {sampler.dp_size}: "
                    "all ranks of a task must agree"
                )
        if client is not None:
            self._ranks[task, client] = [sampler]
            return
        ranks = self._ranks.setdefault((task, None), [])
        ranks[:] = [rank for rank in ranks if rank.dp_rank != sampler.dp_rank] + [sampler]

    def choose(self, task: str, client: str, params: Mapping[str, Any] | None, get_n_samples: bool) -> Choice:
        """How a request of this client for this task is served; errors name what is wrong with its parameters."""
        if self._lost:
            self._refuse_lost(task)
        sampler = self._tasks.get(task, self._default)
        given = dict(params or {})
        custom = None if type(sampler) in BUILT_IN else sampler
        if custom is None:
            refuse_unknown(given)
        dp = dp_place(given)
        default = self._rank_of(task, client) if params is None else None
        rest = {key: value for key, value in given.items() if key not in DP_KEYS}
        whole = get_n_samples or sampler.whole_groups
        return Choice(whole, dp, default, custom, rest)

    def _rank_of(self, task: str, client: str) -> DPSampler | None:
        for key in ((task, client), (task, None), (None, None)):
            ranks = self._ranks.get(key)
            if ranks and len(ranks) > 1:
                raise DPGroupError(
                    f"task {task!r} has the DP ranks {sorted(rank.dp_rank for rank in ranks)} registered through the "
                    "controller, so it cannot be known which one the caller is: pass sampler_params, or register "
                    "each rank through its own client"
                )
            if ranks:
                return ranks[0]
        return None
