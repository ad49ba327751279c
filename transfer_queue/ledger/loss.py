"""When values die with the storage that kept them: which rows are done again, and by whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldLostError
from transfer_queue.ledger.book import Book
from transfer_queue.ledger.lease import Lease
from transfer_queue.ledger.partition import LOST, ROOT, THERE, Partition
from transfer_queue.ledger.view import CONSUMED, Rows

Mask = NDArray[np.bool_]
"""A bit per row of a partition."""


def lose(book: Book, indexes: Sequence[int], fields: Iterable[str]) -> None:
    """Carry out `Ledger.lose`."""
    names = list(dict.fromkeys(fields))
    for partition, rows in book.steps.still_there(indexes):
        _lose_in(book, partition, rows, names)


def check_not_lost(book: Book, indexes: Sequence[int], field: str) -> None:
    """Carry out `Ledger.check_not_lost`."""
    for partition, rows in book.steps.locate(indexes):
        lost = rows[partition.marked(field, LOST)[rows]]
        if len(lost):
            raise FieldLostError(
                f"field {field!r} of {len(lost)} of these rows of step {partition.step} was lost with its storage: "
                "the task that made it makes it again"
            )


def _lose_in(book: Book, partition: Partition, rows: Rows, fields: list[str]) -> None:
    mask = np.zeros(partition.size, dtype=np.bool_)
    mask[rows] = True
    lost = {field: mask & partition.has(field) for field in fields}
    roots = np.zeros_like(mask)
    for field, there in lost.items():
        roots |= there & partition.marked(field, ROOT)
    going = {field: there & ~roots for field, there in lost.items()}
    again = _spread(partition, going)
    partition.drop(np.flatnonzero(roots), "lost")
    _end_leases(book, partition, lost, going)
    for field, there in lost.items():
        _mark(partition, field, there)
    for field, there in going.items():
        book.withdraw(partition, field, np.flatnonzero(there))
    for task, there in again.items():
        done = there & (partition.task(task).state == CONSUMED)
        book.move_back(task, partition, np.flatnonzero(done), CONSUMED)
    book.done([(partition, np.flatnonzero(roots))])


def _spread(partition: Partition, going: dict[str, Mask]) -> dict[str, Mask]:
    """Add to `going` what has to go with the lost fields, and say which task does which rows again.

    Whoever makes a field anew makes everything anew that it had put there, and so does a task that had put a field
    after it had read one that is made anew; otherwise the row would have a new response with the reward of the old.
    """
    again: dict[str, Mask] = {}
    todo = list(going)
    while todo:
        field = todo.pop()
        producer = partition.producers.get(field)
        for task, stand in partition.tasks.items():
            made = {name: partition.marked(name, THERE) for name, maker in partition.producers.items() if maker == task}
            there = going[field]
            if task != producer:
                there = there & (stand.state == CONSUMED) & (field in stand.fields_read) & _any(made, there)
            if not made or not there.any():
                continue
            again[task] = again.get(task, np.zeros_like(there)) | there
            for name, has in made.items():
                old = going.get(name, np.zeros_like(there))
                new = old | (there & has)
                if (new != old).any():
                    going[name] = new
                    todo.append(name)
    return again


def _any(masks: dict[str, Mask], like: Mask) -> Mask:
    found = np.zeros_like(like)
    for mask in masks.values():
        found |= mask
    return found


def _end_leases(book: Book, partition: Partition, lost: dict[str, Mask], going: dict[str, Mask]) -> None:
    """End the leases on rows of which a field goes that they read or have written."""
    for lease in book.leases.of([partition]):
        for field, gone in {**lost, **{name: going[name] | lost.get(name, False) for name in going}}.items():
            if _concerns(lease, partition, field, gone):
                text = f"ended: field {field!r} of its rows was lost with its storage; the rows went back to the task"
                book.give_back(lease, text, lost=True)
                break


def _concerns(lease: Lease, partition: Partition, field: str, gone: Mask) -> bool:
    if any(where is partition and field in fields and gone[rows].any() for where, fields, rows in lease.written):
        return True
    return field in lease.fields and any(where is partition and gone[rows].any() for where, rows in lease.parts)


def _mark(partition: Partition, field: str, there: Mask) -> None:
    rows = np.flatnonzero(there & partition.has(field))
    if len(rows):
        partition.unwrite(field, rows)
    if there.any():
        partition.fields[field].array[there] = LOST
