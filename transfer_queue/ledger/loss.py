"""When values die with the storage that kept them: which rows are done again, and by whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldLostError
from transfer_queue.ledger.book import Book
from transfer_queue.ledger.lease import Lease, Part
from transfer_queue.ledger.partition import LOST, ROOT, THERE, Partition
from transfer_queue.ledger.view import CONSUMED, Rows

Mask = NDArray[np.bool_]
"""A bit per row of a partition."""


@dataclass(frozen=True, slots=True)
class _Loss:
    """What goes in one partition: fields `lost` with the storage, fields `going` with them, tasks that do rows `again`.

    Rows in `roots` lost a field with which they were put.
    """

    partition: Partition
    lost: dict[str, Mask]
    roots: Mask
    going: dict[str, Mask]
    again: dict[str, Mask]


def lose(book: Book, indexes: Sequence[int], fields: Iterable[str]) -> None:
    """Carry out `Ledger.lose`."""
    names = list(dict.fromkeys(fields))
    losses = [_loss(partition, rows, names) for partition, rows in book.steps.still_there(indexes)]
    for loss in losses:
        loss.partition.drop(np.flatnonzero(loss.roots), "lost")
    # Nothing is freed before every row is where it belongs: when the leases end, all tasks may seem to be through.
    touched = [part for loss in losses for part in _end_leases(book, loss)]
    for loss in losses:
        _do_again(book, loss)
        touched.append((loss.partition, np.flatnonzero(loss.roots)))
    book.done(touched)


def check_not_lost(book: Book, indexes: Sequence[int], field: str) -> None:
    """Carry out `Ledger.check_not_lost`."""
    for partition, rows in book.steps.locate(indexes):
        lost = rows[partition.marked(field, LOST)[rows]]
        if len(lost):
            raise FieldLostError(
                f"field {field!r} of {len(lost)} of these rows of step {partition.step} was lost with its storage: "
                "the task that made it makes it again"
            )


def _loss(partition: Partition, rows: Rows, fields: list[str]) -> _Loss:
    mask = np.zeros(partition.size, dtype=np.bool_)
    mask[rows] = True
    lost = {field: mask & partition.has(field) for field in fields}
    roots = np.zeros_like(mask)
    for field, there in lost.items():
        roots |= there & partition.marked(field, ROOT)
    going = {field: there & ~roots for field, there in lost.items()}
    return _Loss(partition, lost, roots, going, _spread(partition, going))


def _do_again(book: Book, loss: _Loss) -> None:
    for field, there in loss.lost.items():
        _mark(loss.partition, field, there)
    for field, there in loss.going.items():
        book.withdraw(loss.partition, field, np.flatnonzero(there))
    for task, there in loss.again.items():
        done = there & (loss.partition.task(task).state == CONSUMED)
        book.move_back(task, loss.partition, np.flatnonzero(done), CONSUMED)


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


def _end_leases(book: Book, loss: _Loss) -> list[Part]:
    """End the leases on rows of which a field goes that they read or have written; their rows."""
    ended: list[Part] = []
    gone = {**loss.lost, **{name: there | loss.lost.get(name, False) for name, there in loss.going.items()}}
    for lease in book.leases.of([loss.partition]):
        field = next((name for name, there in gone.items() if _concerns(lease, loss.partition, name, there)), None)
        if field is not None:
            text = f"ended: field {field!r} of its rows was lost with its storage; the rows went back to the task"
            book.end(lease, text, lost=True)
            ended += lease.parts
    return ended


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
