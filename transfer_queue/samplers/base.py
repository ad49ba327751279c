"""The interface of samplers: which rows are ready, and which of those a consumer gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class BaseSampler(ABC):
    """Base of all samplers; a subclass implements both methods and may hold state of its own.

    A custom sampler is run by the controller on a copy of one partition, one call at a time, in a thread with a
    deadline. Whatever it raises becomes a `SamplerError` of the caller. Its constructor arguments are remembered, so
    that it can travel to another process as import path and arguments.
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseSampler:
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    @abstractmethod
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The indices to take, out of `ready_indices`; fewer than `batch_size` means "not yet".

        `kwargs` holds the caller's `sampler_params` (less the DP keys) and `get_n_samples`, `num_n_samples`.
        With DP parameters, `batch_size` is that of all ranks together.
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

    def __repr__(self) -> str:
        args, kwargs = self._arguments
        shown = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(shown)})"
