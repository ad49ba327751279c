"""`SeqlenBalancedSampler`: the ranks of a data-parallel step get nearly equally many tokens."""

from __future__ import annotations

import math
from typing import Any

from transfer_queue.errors import ConfigurationError, FieldError, GroupError
from transfer_queue.ledger.explain import NO_LENGTH
from transfer_queue.samplers.base import BaseSampler, Withheld
from transfer_queue.samplers.built_in import rows_with_fields, whole_groups
from transfer_queue.samplers.karmarkar_karp import balanced_split


class SeqlenBalancedSampler(BaseSampler):
    """The rows that `SequentialSampler` would take, dealt to the DP ranks so that their total lengths are nearly equal.

    `length_field` is a number per row, put by whoever knows it (`{"length": torch.tensor([...])}`). Groups of
    `num_n_samples` rows stay whole and on one rank (with `num_n_samples=1`, only if `get_n_samples=True`). Which rows
    make the batch does not depend on their lengths, so nothing is favoured; without DP parameters the order stays too.
    A row without a length is not served.
    """

    def __init__(self, length_field: str = "length", num_n_samples: int = 1) -> None:
        given: object = num_n_samples
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ConfigurationError(
                f"SeqlenBalancedSampler: num_n_samples must be a whole number of at least 1, not {num_n_samples!r}"
            )
        field: object = length_field
        if not isinstance(field, str) or not field:
            raise ConfigurationError(
                f"SeqlenBalancedSampler: length_field must be the name of a field, not {length_field!r}"
            )
        self.length_field, self.num_n_samples = length_field, num_n_samples
        self.value_fields = (length_field,)
        self.whole_groups = num_n_samples > 1

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The first `batch_size` rows in whole groups, rank after rank; nothing while there are fewer."""
        ranks, size = kwargs.get("dp_size", 1), self._group_size(kwargs)
        if batch_size % (ranks * size):
            raise GroupError(
                f"batch_size={batch_size} of all ranks together is not divisible by dp_size={ranks} * "
                f"num_n_samples={size}: each rank gets equally many whole groups"
            )
        rows = sorted(whole_groups(ready_indices, size))[:batch_size]
        if len(rows) < batch_size:
            return []
        groups = [rows[start : start + size] for start in range(0, batch_size, size)]
        if ranks == 1:
            return rows
        lengths = self._lengths(kwargs)
        totals = [sum(float(lengths[row]) for row in group) for group in groups]
        return [row for rank in balanced_split(totals, ranks) for place in rank for row in groups[place]]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """The rows with every field and a length that the task has not taken."""
        ready = rows_with_fields(all_indices, production_status, consumption_status, data_fields, field_mapping)
        lengths = self._lengths(kwargs)
        ready = [row for row in ready if math.isfinite(lengths[row])]
        size = self._group_size(kwargs)
        return whole_groups(ready, size)

    def explain_withheld(self, withheld: list[int], **kwargs: Any) -> list[Withheld]:
        """Rows without a length."""
        lengths = self._lengths(kwargs)
        rows = [row for row in withheld if not math.isfinite(lengths[row])]
        return [Withheld(NO_LENGTH, f"without a finite number in field {self.length_field!r}", rows)]

    def _group_size(self, kwargs: dict[str, Any]) -> int:
        if self.num_n_samples > 1:
            return self.num_n_samples
        return int(kwargs["num_n_samples"]) if kwargs.get("get_n_samples") else 1

    def _lengths(self, kwargs: dict[str, Any]) -> Any:
        lengths = kwargs["values"][self.length_field]
        if lengths.ndim != 1:
            raise FieldError(
                f"field {self.length_field!r} holds {lengths.shape[1]} numbers per row; a length is one number per row"
            )
        return lengths
