"""`StalenessFilter`: no sample older than so many versions is served, whatever the sampler behind it chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import ConfigurationError, SamplerError
from transfer_queue.ledger.explain import NO_VERSION, STALE
from transfer_queue.samplers.base import BaseSampler, Withheld
from transfer_queue.samplers.built_in import DPSampler
from transfer_queue.samplers.travel import SamplerLike, instance_of

POLICIES = ("drop", "wait")


class StalenessFilter(BaseSampler):
    """Serves what `inner` chooses among the rows that are at most `max_staleness` versions old.

    The consumer says which version it is at: `sampler_params={"version": 7}`, a whole number, or (lineage, step), of
    which the step counts. A row's version is in `version_field`, in either form; its staleness is the difference, and a
    row without a version is not served. With `policy="drop"` a row that is too old is dropped for every task, with the
    reason "stale" (where whole groups are served, with what is left of its group, which could never be whole again);
    with `policy="wait"` it stays and is not served.

    `inner` is any sampler: an instance, a class, or a callable that makes one.
    """

    def __init__(
        self, inner: SamplerLike, max_staleness: int, version_field: str = "version", policy: str = "drop"
    ) -> None:
        given: object = max_staleness
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            raise ConfigurationError(
                f"StalenessFilter: max_staleness must be a whole number of versions, not {max_staleness!r}"
            )
        if policy not in POLICIES:
            raise ConfigurationError(f"StalenessFilter: policy must be 'drop' or 'wait', not {policy!r}")
        self.inner = instance_of(inner)
        if isinstance(self.inner, DPSampler):
            raise ConfigurationError(
                f"StalenessFilter: {self.inner!r} chooses no rows, it gives a client its DP parameters: wrap "
                "SequentialSampler() and pass dp_rank, dp_size and dp_group_id in sampler_params"
            )
        self.max_staleness, self.version_field, self.policy = max_staleness, version_field, policy
        self.value_fields = tuple(dict.fromkeys([version_field, *self.inner.value_fields]))
        self.whole_groups, self.deterministic = self.inner.whole_groups, self.inner.deterministic

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """What `inner` chooses."""
        return self.inner.sample(ready_indices, batch_size, **kwargs)

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """What `inner` finds ready among the rows that are fresh enough."""
        age = self._staleness(kwargs)
        fresh = [row for row in all_indices if age[row] <= self.max_staleness]
        return self.inner.filter_ready_indices(
            fresh, production_status, consumption_status, data_fields, field_mapping, **kwargs
        )

    def reject(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> dict[str, list[int]]:
        """With `policy="drop"`, the rows that are too old; and whatever `inner` rejects."""
        arguments = (all_indices, production_status, consumption_status, data_fields, field_mapping)
        rejected = {reason: list(rows) for reason, rows in self.inner.reject(*arguments, **kwargs).items()}
        if self.policy == "wait":
            return rejected
        named = {row for rows in rejected.values() for row in rows}
        taken, age = consumption_status.tolist(), self._staleness(kwargs)
        free = [row for row in all_indices if not taken[row] and row not in named]
        size = int(kwargs["num_n_samples"]) if kwargs.get("get_n_samples") or self.whole_groups else 1
        stale = {row // size for row in free if age[row] > self.max_staleness}
        rejected[STALE] = rejected.get(STALE, []) + [row for row in free if row // size in stale]
        return rejected

    def explain_withheld(self, withheld: list[int], **kwargs: Any) -> list[Withheld]:
        """Rows that are too old, rows without a version, and what `inner` says of the others."""
        age = self._staleness(kwargs)
        stale = [row for row in withheld if age[row] > self.max_staleness]
        unknown = [row for row in withheld if np.isnan(age[row])]
        others = [row for row in withheld if age[row] <= self.max_staleness]
        return [
            Withheld(STALE, f"stale by more than {self.max_staleness} versions", stale),
            Withheld(NO_VERSION, f"without a version in field {self.version_field!r}", unknown),
            *self.inner.explain_withheld(others, **kwargs),
        ]

    def _staleness(self, kwargs: dict[str, Any]) -> NDArray[np.float64]:
        """How many versions behind the consumer each row is; NaN where it has no version."""
        if "version" not in kwargs:
            raise SamplerError(
                f"{self!r} must know how far the consumer is: pass sampler_params={{'version': …}}, a whole number "
                "or (lineage, step)"
            )
        rows = kwargs["values"][self.version_field]
        steps: NDArray[np.float64] = rows if rows.ndim == 1 else rows[:, -1]
        return step_of(kwargs["version"]) - steps


def step_of(version: object) -> int:
    """The step of a version, which is a whole number or (lineage, step)."""
    step: object = version
    if isinstance(version, list | tuple) and len(version) == 2:
        step = version[1]
    if isinstance(step, bool) or not isinstance(step, int):
        raise SamplerError(f"version={version!r} is neither a whole number nor (lineage, step)")
    return step
