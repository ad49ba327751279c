"""What is known of single rows: for a person who wants to see them, not for the loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer_queue.ledger.ledger import Ledger
from transfer_queue.ledger.partition import FREED, Partition
from transfer_queue.ledger.view import CONSUMED, DROPPED, LEASED

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class RowState:
    """One row: its fields, and for each task "free", "ready", "consumed", "leased by …" or "dropped (…)".

    A row whose values were freed, because nobody can need them any more, has no fields.
    A row is ready for a task if its latest request could have it: all fields are there, and the whole group if it
    takes groups.
    """

    index: int
    step: int
    group: str | int
    fields: tuple[str, ...]
    tasks: dict[str, str]


def peek(ledger: Ledger, step: int | None, limit: int) -> list[RowState]:
    """The first `limit` rows of a step, or of the alive steps from the oldest; changes nothing."""
    found: list[RowState] = []
    for partition in ledger.steps.in_order(step):
        rows = _first(partition, limit - len(found))
        fields = [(name, partition.has(name)) for name in sorted(partition.fields)]
        tasks = {task: _states(ledger, partition, task, rows) for task in task_names(ledger)}
        for row in rows:
            there = partition.exists[row] != FREED
            has = tuple(name for name, produced in fields if there and produced[row])
            states = {task: state[row] for task, state in tasks.items()}
            found.append(RowState(row + partition.base, partition.step, partition.seats.name(row), has, states))
    return found


def task_names(ledger: Ledger) -> list[str]:
    """Every task that the queue has heard of: others by name, then those of `tasks=` in their order."""
    seen = {*ledger.last_wants, *(name for partition in ledger.steps.in_order() for name in partition.tasks)}
    return [*sorted(seen.difference(ledger.shape.tasks)), *ledger.shape.tasks]


def _first(partition: Partition, limit: int) -> list[int]:
    """The first rows that exist; only the blocks that hold them are looked at."""
    found: list[int] = []
    for start in range(0, partition.size, BLOCK):
        if len(found) == limit:
            break
        rows = np.flatnonzero(partition.exists[start : start + BLOCK])[: limit - len(found)]
        found += (rows + start).tolist()
    return found


def _states(ledger: Ledger, partition: Partition, task: str, rows: list[int]) -> dict[int, str]:
    stand, want = partition.task(task), ledger.last_wants.get(task)
    unit = ledger.shape.num_n_samples if want is not None and want.whole_groups else 1
    ready = partition.view(task, want.fields, unit).ready if want is not None else None
    states = {row: int(stand.state[row]) for row in rows}
    words = {row: "ready" if ready is not None and ready[row // unit] else "free" for row in rows}
    words |= {row: "consumed" for row in rows if states[row] == CONSUMED}
    if LEASED in states.values():
        words |= _holders(ledger, partition, task, rows)
    if DROPPED in states.values():
        reasons = _drop_reasons(partition, rows)
        words |= {row: reasons.get(row, "dropped") for row in rows if states[row] == DROPPED}
    return words


def _holders(ledger: Ledger, partition: Partition, task: str, rows: list[int]) -> dict[int, str]:
    wanted, found = np.asarray(rows), {}
    for lease in ledger.leases.of([partition]):
        if lease.task == task:
            held = [there for where, there in lease.parts if where is partition]
            for row in wanted[np.isin(wanted, np.concatenate(held))] if held else ():
                found[int(row)] = f"leased by {lease.client!r}"
    return found


def _drop_reasons(partition: Partition, rows: list[int]) -> dict[int, str]:
    numbers = {row: partition.dropped.at[row] for row in rows} if partition.dropped is not None else {}
    return {row: f"dropped ({partition.reasons[number - 1]})" for row, number in numbers.items() if number}
