"""Which waits can never be served: told at once instead of at a deadline."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from transfer_queue.errors import ConfigurationError, ExhaustedError, GroupError, StepClearedError
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.steps import Steps

NAMED = 3
"""Reasons of drops that one error names."""


def check_possible(shape: QueueShape, steps: Steps, want: Want) -> None:
    """`ExhaustedError` if so many rows can never become ready, `StepClearedError` if the step was cleared.

    Leased rows may come back and missing rows may still be put, so only consumed and dropped ones are out of reach. The
    first few reasons of drops are the error's `details["dropped"]`.
    """
    n, reasons = shape.num_n_samples, list[str]()
    if want.step is None:
        most, where = shape.capacity * shape.num_global_batch, "all steps together"
        why = f"num_global_batch={shape.num_global_batch} partitions of {shape.capacity} rows hold no more"
    elif want.step in steps.cleared:
        raise StepClearedError(f"step {want.step} was cleared: task {want.task!r} cannot take rows of it any more")
    else:
        most, where = shape.capacity, f"step {want.step}"
        why = f"a step has {most} rows (global_batch_size={shape.global_batch_size} * num_n_samples={n})"
        for partition in steps.in_order(want.step):
            stand, retired = partition.task(want.task), partition.seats.retired * n
            most += retired
            why += f" and {retired} more in place of dropped groups" * bool(retired)
            most -= stand.spoiled_groups * n if want.whole_groups else stand.gone
            why += f", of which it consumed {stand.consumed} and {stand.dropped_rows} were dropped"
            reasons = list(islice((reason for reason, rows in stand.dropped.items() if rows), NAMED))
            why += f" ({'; '.join(reasons)})" if reasons else ""
    if want.needed > most:
        raise ExhaustedError(
            f"task {want.task!r} can never get {want.needed} rows of {where}: at most {most} can become ready; {why}",
            {"needed": want.needed, "possible": most, "dropped": reasons},
        )


MOST_TASKS, MOST_FIELDS, LONGEST_NAME = 256, 1024, 256
"""Each task and each field costs memory per row, so that a caller who invents names must come to an end."""


def check_name(kind: str, name: str, known: Collection[str], most: int) -> None:
    """`ConfigurationError` for a name that is too long, or one too many."""
    if name in known:
        return
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(f"the {kind} {name[:40]!r}… has {len(name)} characters: {LONGEST_NAME} are allowed")
    if len(known) >= most:
        raise ConfigurationError(
            f"the {kind} {name!r} would be one more than the {most} that a queue has room for: use those it knows, "
            f"such as {sorted(known)[:3]}"
        )


def check_fits(shape: QueueShape, rows: int) -> None:
    """`GroupError` if one put brings more rows than the whole queue holds; asked before anything is done per row."""
    most = shape.capacity * shape.num_global_batch
    if rows > most:
        raise GroupError(
            f"this put brings {rows} rows, but num_global_batch={shape.num_global_batch} partitions of "
            f"{shape.capacity} hold {most} together: put fewer rows at once"
        )
