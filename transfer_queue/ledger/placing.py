"""Where the rows of a put go: groups never straddle partitions, and what can never fit is an error at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer_queue.errors import FieldError, GroupError
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.seats import Label, Seats, check_group_sizes
from transfer_queue.ledger.steps import Steps
from transfer_queue.ledger.view import Rows

LAST_STEP = 2**53
"""Behind a later one, steps would be counted on until they fit into no message."""


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of one put that go to one step: `places` are their numbers in the put; no labels: whole new groups."""

    step: int
    places: Rows
    labels: Sequence[Label] | None


def room_for_one(steps: Steps, label: Label | None, step: int | None) -> Partition | None:
    """The alive partition that takes one row of this group (None: of a group of its own), if that is plain to see."""
    if step is not None:
        partition = steps.alive.get(step)
        return partition if partition is not None and partition.seats.takes(label) else None
    order = steps.in_order()
    if label is not None:
        for partition in reversed(order):
            if partition.seats.find(label) is not None:
                return partition if partition.seats.takes(label) else None
    return next((partition for partition in order if partition.seats.free), None)


def shares(steps: Steps, count: int, labels: Sequence[Label] | None, step: int | None) -> list[Share] | None:
    """Where `count` new rows go, or None while they must wait for a partition to be cleared.

    Without a step, groups that are open continue, others fill the oldest partition with room, then new steps.
    """
    n = steps.shape.num_n_samples
    if labels is not None and len(labels) != count:
        raise GroupError(f"group_id names {len(labels)} groups for {count} rows: give one value, or one per row")
    if labels is None and count % n:
        raise GroupError(
            f"a put of {count} rows makes no whole groups of num_n_samples={n}: put a multiple of {n} rows in "
            "order, or say with group_id which prompt each row belongs to"
        )
    if step is not None:
        return _in_step(steps, count, labels, step)
    return _unnamed(steps, count) if labels is None else _anywhere(steps, labels)


def _in_step(steps: Steps, count: int, labels: Sequence[Label] | None, step: int) -> list[Share] | None:
    shape = steps.shape
    if step < 0:
        raise FieldError(f"global_step={step} is negative")
    if step > LAST_STEP:
        raise FieldError(f"global_step={step} is out of range: the last one is {LAST_STEP}")
    alive = steps.alive.get(step)
    seats = Seats(0, shape.global_batch_size, shape.num_n_samples) if alive is None else alive.seats
    if labels is None:
        fresh = count // shape.num_n_samples
    else:
        check_group_sizes(labels, {label: _room(seats, alive, label) for label in labels})
        fresh = sum(alive is None or seats.find(label) is None for label in dict.fromkeys(labels))
    if fresh > seats.free:
        raise GroupError(
            f"step {step} has room for {seats.free} more groups of {shape.num_n_samples} rows, "
            f"but this put begins {fresh}: a partition is {shape.global_batch_size} prompts; "
            "clear the step first, or put into another one"
        )
    if alive is None and len(steps.alive) >= shape.num_global_batch:
        return None
    return [Share(step, np.arange(count), labels)]


def _room(seats: Seats, alive: Partition | None, label: Label) -> int:
    return seats.size if alive is None else seats.room_in(label)


def _unnamed(steps: Steps, count: int) -> list[Share] | None:
    """Whole new groups without names, in order."""
    n, start, found = steps.shape.num_n_samples, 0, []
    for step, free in _rooms(steps):
        rows = min(free * n, count - start)
        if rows:
            found.append(Share(step, np.arange(start, start + rows), None))
        start += rows
        if start == count:
            return found
    _check_can_fit(steps, count // n)
    return None


def _rooms(steps: Steps) -> list[tuple[int, int]]:
    """Step and free groups of every partition, the unborn ones included."""
    unborn = range(steps.next_step, steps.next_step + steps.shape.num_global_batch - len(steps.alive))
    alive = [(partition.step, partition.seats.free) for partition in steps.in_order()]
    return alive + [(step, steps.shape.global_batch_size) for step in unborn]


def _anywhere(steps: Steps, labels: Sequence[Label]) -> list[Share] | None:
    home: dict[Label, int] = {}
    left: dict[Label, int] = {}
    room = dict(_rooms(steps))
    for label in dict.fromkeys(labels):
        known = [p for p in steps.in_order() if p.seats.find(label) is not None]
        step = known[-1].step if known else next((step for step, free in room.items() if free), None)
        if step is None:
            _check_can_fit(steps, len(dict.fromkeys(labels)))
            return None
        home[label] = step
        left[label] = known[-1].seats.room_in(label) if known else steps.shape.num_n_samples
        room[step] -= not known
    check_group_sizes(labels, left)
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(home[label], []).append(place)
    return [Share(step, np.array(mine), [labels[place] for place in mine]) for step, mine in places.items()]


def _check_can_fit(steps: Steps, groups: int) -> None:
    most = steps.shape.num_global_batch * steps.shape.global_batch_size
    if groups > most:
        raise GroupError(
            f"this put brings {groups} groups, but num_global_batch={steps.shape.num_global_batch} partitions hold "
            f"{most} together: put fewer rows at once"
        )
