"""The values of small numeric fields as samplers see them: one float64 array per field, NaN where there is no value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldError, SamplerError
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.view import FREE

ReadValues = Callable[[str, list[int]], Sequence[Any]]
"""The values of one field of these rows (by global index), in this order: numbers, or a few numbers per row."""

MOST_NUMBERS = 8
"""Numbers per row; more is data, which a sampler has no business with."""


def read_numbers(partition: Partition, task: str, field: str, read: ReadValues) -> NDArray[np.float64]:
    """The values of one field of the rows that the task could still take, in an array with an entry for every row."""
    rows = np.flatnonzero(partition.has(field) & partition.exists & (partition.task(task).state == FREE))
    try:
        found = numbers(field, read(field, (rows + partition.base).tolist())) if len(rows) else np.empty(0)
    except FieldError as error:
        raise SamplerError(f"the values of field {field!r} cannot be read for a sampler: {error}") from error
    return spread(partition.size, rows, found)


def spread(capacity: int, rows: NDArray[np.intp], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """An array, not to be written to, that has these values at these rows and NaN everywhere else."""
    result = np.full((capacity, *found.shape[1:]), np.nan)
    result[rows] = found
    result.flags.writeable = False
    return result


def numbers(field: str, values: Sequence[Any]) -> NDArray[np.float64]:
    """One number, or one short list of numbers, per row; anything else is a `SamplerError` naming the first row."""
    try:
        found = np.asarray(values)
    except ValueError:
        found = np.asarray(None)
    if found.dtype.kind not in "biuf" or found.ndim > 2 or (found.ndim == 2 and found.shape[1] > MOST_NUMBERS):
        shown = repr(values[0])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise SamplerError(
            f"a sampler wants the values of field {field!r}, which is not one number (or up to {MOST_NUMBERS} numbers, "
            f"equally many in each row) per row: the first of {len(values)} rows holds {shown}; "
            "put the number as a field of its own"
        )
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    return found.astype(np.float64)
