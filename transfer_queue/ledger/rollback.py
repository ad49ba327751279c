"""Back to a checkpoint: rows that were acknowledged at a later version have not been done after all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer_queue.errors import ConfigurationError
from transfer_queue.ledger.book import Book
from transfer_queue.ledger.partition import EXISTS, THERE, Partition
from transfer_queue.ledger.view import CONSUMED, FREE, Rows


@dataclass(frozen=True, slots=True)
class Rolled:
    """What `Ledger.rollback` did: by task, the `rows` (global indexes) that it can be given again.

    `gone_steps` were acknowledged at a later version too, but were cleared since; `gone_rows` likewise are rows of
    alive steps that every task had consumed, so that their values are kept no longer. Whoever needs those has to
    produce them anew.
    """

    rows: dict[str, list[int]]
    gone_steps: list[int]
    gone_rows: list[int]


def rollback(book: Book, version: int) -> Rolled:
    """Carry out `Ledger.rollback`."""
    if not -1 <= version < 2**31 - 1:
        raise ConfigurationError(
            f"version={version} is out of range: it is a whole number from 0 to 2**31 - 2, or -1 to undo every ack "
            "that bore one"
        )
    gone_steps = {step for step, bore in book.steps.cleared.items() if bore > version}
    gone_rows: set[int] = set()
    rows: dict[str, list[int]] = {}
    for partition in book.steps.in_order():
        if partition.past_version > version:
            gone_steps.add(partition.step)
        free: dict[str, Rows] = {}
        for task, stand in partition.tasks.items():
            late = stand.acked_after(version)
            there = partition.exists[late] == EXISTS
            gone_rows.update((late[~there] + partition.base).tolist())
            free[task] = book.move_back(task, partition, late[there], CONSUMED)
        _redo(book, partition, free)
        for task, found in free.items():
            if len(found):
                rows.setdefault(task, []).extend((found + partition.base).tolist())
    book.reservations.roll_back(version)
    return Rolled(rows, sorted(gone_steps), sorted(gone_rows))


def _redo(book: Book, partition: Partition, free: dict[str, Rows]) -> None:
    """What a task had put into these rows under a lease goes, so that it can be put again.

    Unless another task has it: then the work stands, and its rows stay consumed.
    """
    made = {task: [name for name, maker in partition.producers.items() if maker == task] for task in free}
    changed = True
    while changed:
        changed = False
        for task, rows in free.items():
            for field in made[task]:
                there = partition.having(field, rows, THERE)
                used = there[partition.taken_by_others(task, field, there)]
                if len(used):
                    book.move(task, [(partition, used)], FREE, CONSUMED)
                    rows = free[task] = np.setdiff1d(rows, used)
                    changed = True
    for task, rows in free.items():
        for field in made[task]:
            book.withdraw(partition, field, partition.having(field, rows, THERE))
