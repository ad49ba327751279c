"""The interface of samplers: which rows are ready, and which of those a consumer gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple


class Withheld(NamedTuple):
    """Rows that are ready but that a sampler does not offer, and why.

    `code` is the short name of the reason for programs, `detail` completes the sentence "12 …" for a person.
    """

    code: str
    detail: str
    rows: list[int]


class BaseSampler(ABC):
    """Base of all samplers; a subclass implements both methods and may hold state of its own.

    A custom sampler is run by the controller on a copy of one partition, one call at a time, in a thread with a
    deadline. Whatever it raises becomes a `SamplerError` of the caller. Its constructor arguments are remembered, so
    that it can travel to another process as import path and arguments. `transfer_queue.testing.check_sampler` tries
    a sampler against all that is said here.

    Every method gets, as keyword arguments, the caller's `sampler_params` (less the DP keys) and

    - `get_n_samples`: whether whole groups are asked for; `num_n_samples`: the rows of a group (row i belongs to
      group i // num_n_samples); `dp_size`: how many DP ranks share the batch (1 without DP parameters);
    - `values`: for each name in `value_fields`, a float64 array whose entry i is the value of row i. It is NaN where
      the row lacks the field or the task cannot take the row. A field of a few numbers per row, such as a version
      (lineage, step), gives an array of two dimensions. Whole numbers beyond 2**53 are rounded.
    """

    value_fields: tuple[str, ...] = ()
    """Small numeric fields whose values the sampler wants; may be set by the constructor."""

    whole_groups: bool = False
    """Whether only whole groups are served, whatever the caller asks for."""

    deterministic: bool = True
    """Whether equal arguments give equal answers; a sampler that draws lots or keeps a tally says False."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseSampler:
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    @abstractmethod
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The indices to take, out of `ready_indices`; fewer than `batch_size` means "not yet".

        With DP parameters, `batch_size` is that of all ranks together, and rank r gets the r-th slice of the answer.
        """

    @abstractmethod
    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """Those of `all_indices` (the rows that were put) that may be taken now, in the order of preference.

        `production_status[i, c]` says whether row i of the partition has the field of column c;
        `field_mapping` gives the column of each field that somebody has put; `consumption_status[i]` says whether
        the task holds, has consumed or cannot have row i. Both are boolean tensors (NumPy arrays without torch).
        """

    def reject(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> dict[str, list[int]]:
        """Rows that nobody shall have any more, by reason; asked before, and like, `filter_ready_indices`.

        They are dropped for this task and every task that has not taken them. Only rows of `all_indices` that the
        task has not taken may be named, each once; a row need not be ready.
        """
        return {}

    def explain_withheld(self, withheld: list[int], **kwargs: Any) -> list[Withheld]:
        """Why these ready rows were not offered, for the explanation of a task that waits.

        Rows that no entry names are explained as held back by the sampler.
        """
        return []

    def __repr__(self) -> str:
        args, kwargs = self._arguments
        shown = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(shown)})"
