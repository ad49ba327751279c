"""The samplers that come with the queue.

The ledger serves them by its own incremental path; their methods here do the same on lists and tensors, as documented
for every sampler, and a property test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from transfer_queue.errors import ConfigurationError, DPGroupError, GroupError
from transfer_queue.ledger.request import check_rank
from transfer_queue.samplers.base import BaseSampler


def rows_with_fields(
    all_indices: list[int],
    production_status: Any,
    consumption_status: Any,
    data_fields: list[str],
    field_mapping: dict[str, int],
) -> list[int]:
    """Rows that have every field and are not taken, in the order of `all_indices`."""
    if any(field not in field_mapping for field in data_fields):
        return []
    produced, taken = production_status.tolist(), consumption_status.tolist()
    columns = [field_mapping[field] for field in data_fields]
    return [i for i in all_indices if not taken[i] and all(produced[i][column] for column in columns)]


def whole_groups(indices: list[int], group_size: int) -> list[int]:
    """Those of `indices` whose group (index // group_size) is there completely."""
    present = Counter(index // group_size for index in indices)
    return [index for index in indices if present[index // group_size] == group_size]


class SequentialSampler(BaseSampler):
    """Rows in order: the first `batch_size` that are ready. With `get_n_samples=True`, whole groups only."""

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The first `batch_size` of the ready rows."""
        if kwargs.get("get_n_samples"):
            return _first_groups(ready_indices, batch_size, kwargs["num_n_samples"])
        return ready_indices[:batch_size]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """The rows with every field that the task has not taken."""
        return rows_with_fields(all_indices, production_status, consumption_status, data_fields, field_mapping)


class GRPOSampler(BaseSampler):
    """Whole groups only: the `num_n_samples` rows of a prompt are taken together or not at all."""

    whole_groups = True

    def __init__(self, num_n_samples: int) -> None:
        given: object = num_n_samples
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ConfigurationError(
                f"GRPOSampler: num_n_samples must be a whole number of at least 1, not {num_n_samples!r}"
            )
        self.num_n_samples = num_n_samples

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The rows of the first complete groups; `batch_size` must be a multiple of `num_n_samples`."""
        return _first_groups(ready_indices, batch_size, self.num_n_samples)

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """The rows of the groups that are complete: every row has every field and none is taken."""
        ready = rows_with_fields(all_indices, production_status, consumption_status, data_fields, field_mapping)
        return whole_groups(ready, self.num_n_samples)


class DPSampler(BaseSampler):
    """One rank's place among `dp_size` ranks: the default DP parameters of callers that pass no `sampler_params`.

    `world_rank` and `world_size` are checked against each other and named in messages, nothing more.
    """

    def __init__(
        self, dp_rank: int, dp_size: int, world_rank: int | None = None, world_size: int | None = None
    ) -> None:
        check_rank("dp_rank", dp_rank, "dp_size", dp_size)
        if world_size is not None:
            check_rank("world_rank", 0 if world_rank is None else world_rank, "world_size", world_size)
            if world_size % dp_size:
                raise DPGroupError(
                    f"world_size={world_size} is not divisible by dp_size={dp_size}: ranks would be left over"
                )
        self.dp_rank, self.dp_size = dp_rank, dp_size
        self.world_rank, self.world_size = world_rank, world_size

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """This rank's slice of the first `batch_size * dp_size` ready rows; nothing while there are fewer."""
        together = ready_indices[: batch_size * self.dp_size]
        if kwargs.get("get_n_samples"):
            together = _first_groups(ready_indices, batch_size * self.dp_size, kwargs["num_n_samples"])
        if len(together) < batch_size * self.dp_size:
            return []
        return together[self.dp_rank * batch_size : (self.dp_rank + 1) * batch_size]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """The rows with every field that the task has not taken."""
        return rows_with_fields(all_indices, production_status, consumption_status, data_fields, field_mapping)


def _first_groups(ready_indices: list[int], batch_size: int, group_size: int) -> list[int]:
    if batch_size % group_size:
        raise GroupError(
            f"batch_size={batch_size} is not divisible by num_n_samples={group_size}: groups are taken whole"
        )
    ready = sorted(whole_groups(ready_indices, group_size))
    return ready[:batch_size]
