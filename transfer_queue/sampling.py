"""Custom samplers: each runs on a copy of one partition, in a thread of its own, one call at a time."""

from __future__ import annotations

import importlib.util
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import SamplerError
from transfer_queue.ledger import Want
from transfer_queue.ledger.explain import EXAMPLES, WITHHELD, Reason
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.view import FREE
from transfer_queue.replies import sendable
from transfer_queue.samplers.base import BaseSampler, Withheld
from transfer_queue.samplers.built_in import whole_groups
from transfer_queue.samplers.registry import Choice
from transfer_queue.samplers.values import ReadValues, read_numbers


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sampler chose, which rows it rejects for good, and why it offers others not (told if it chose too few)."""

    chosen: list[int]
    rejected: dict[str, list[int]]
    withheld: tuple[Reason, ...] = ()


Outcome = Answer | SamplerError


@dataclass(frozen=True, slots=True)
class Offer:
    """A copy of one partition as one task sees it; indices are rows of the partition."""

    want: Want
    choice: Choice
    group_size: int
    version: int
    rows: list[int]
    takeable: frozenset[int]
    produced: NDArray[np.bool_]
    taken: NDArray[np.bool_]
    columns: dict[str, int]
    values: dict[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls, partition: Partition, want: Want, choice: Choice, value_fields: tuple[str, ...], read: ReadValues
    ) -> Offer:
        taken = partition.task(want.task).state != FREE
        columns = {field: column for column, field in enumerate(partition.fields)}
        produced = np.zeros((partition.size, len(columns)), dtype=np.bool_)
        for field, column in columns.items():
            produced[:, column] = partition.has(field)
        takeable = frozenset(np.flatnonzero(partition.view(want.task, want.fields, 1).ready).tolist())
        rows = np.flatnonzero(partition.exists).tolist()
        values = {field: read_numbers(partition, want.task, field, read) for field in value_fields}
        size = partition.group_size
        return cls(want, choice, size, partition.version, rows, takeable, produced, taken, columns, values)

    def ask(self, sampler: BaseSampler) -> Answer:
        """What the sampler answers; runs in the sampler's thread. Raises whatever the sampler raises."""
        rejected = self.rejected(sampler)
        chosen, withheld = self.without(itertools.chain(*rejected.values()))._chosen(sampler)
        return Answer(chosen, rejected, withheld)

    def without(self, rows: Iterable[int]) -> Offer:
        """The same, as if the task had taken these rows."""
        gone, taken = list(rows), self.taken.copy()
        taken[gone] = True
        return replace(self, taken=taken, takeable=self.takeable.difference(gone))

    def _chosen(self, sampler: BaseSampler) -> tuple[list[int], tuple[Reason, ...]]:
        most = len(self.produced) + 1
        offered = sampler.filter_ready_indices(*self.status(), **self.extra())
        ready = whole_numbers(offered, most)
        chosen = whole_numbers(sampler.sample(list(ready), self.want.needed, **self.extra()), most)
        self.checked(sampler, ready, chosen)
        return chosen, () if len(chosen) == self.want.needed else self._withheld(sampler, ready)

    def status(self) -> tuple[list[int], Any, Any, list[str], dict[str, int]]:
        """The arguments of `filter_ready_indices`; what a sampler does to them is seen by nobody else."""
        produced, taken = as_tensors(self.produced.copy(), self.taken.copy())
        return list(self.rows), produced, taken, list(self.want.fields), dict(self.columns)

    def extra(self) -> dict[str, Any]:
        """The keyword arguments of every method of a sampler."""
        return {
            **self.choice.params,
            "get_n_samples": self.choice.whole_groups,
            "num_n_samples": self.group_size,
            "dp_size": self.want.dp.size if self.want.dp else 1,
            "values": dict(self.values),
        }

    def rejected(self, sampler: BaseSampler) -> dict[str, list[int]]:
        """The rows that the sampler wants to be gone, by reason; `SamplerError` if it may not name one of them."""
        if type(sampler).reject is BaseSampler.reject:
            return {}
        named = sampler.reject(*self.status(), **self.extra())
        most = len(self.produced) + 1
        rejected = {sendable(str(reason)): whole_numbers(rows, most) for reason, rows in named.items()}
        free, seen = {row for row in self.rows if not self.taken[row]}, set()
        for reason, rows in rejected.items():
            for row in rows:
                if row not in free or row in seen:
                    what = "twice" if row in seen else "which was not put, or which the task cannot take"
                    joint = " " if row in seen else ", "
                    raise SamplerError(
                        f"sampler {sampler!r} of task {self.want.task!r} rejected row {row} ({reason}){joint}{what}; "
                        "nothing was dropped and nothing was taken"
                    )
                seen.add(row)
        return {reason: rows for reason, rows in rejected.items() if rows}

    def _withheld(self, sampler: BaseSampler, ready: list[int]) -> tuple[Reason, ...]:
        """Why rows that the task could take were not offered; each is counted once."""
        could = set(self._in_whole_groups(sorted(self.takeable)))
        left = could.difference(self._in_whole_groups(ready))
        reasons: list[Reason] = []
        for code, detail, rows in self._told(sampler, sorted(left.difference(ready))):
            counted = left.intersection(rows)
            left -= counted
            reasons.append(_reason(code, counted, detail))
        reasons.append(_reason(WITHHELD, left, f"held back by sampler {sampler!r}"))
        return tuple(reason for reason in reasons if reason.rows)

    def _told(self, sampler: BaseSampler, withheld: list[int]) -> list[Withheld]:
        return sampler.explain_withheld(withheld, **self.extra()) if withheld else []

    def _in_whole_groups(self, rows: list[int]) -> list[int]:
        return whole_groups(rows, self.group_size) if self.choice.whole_groups else rows

    def checked(self, sampler: BaseSampler, ready: list[int], chosen: list[int]) -> None:
        """`SamplerError` that says what is wrong with `chosen`, if anything is."""
        wrong = self._fault(ready, chosen)
        if wrong:
            raise SamplerError(f"sampler {sampler!r} of task {self.want.task!r} {wrong}; nothing was taken")

    def _fault(self, ready: list[int], chosen: list[int]) -> str:
        twice = [index for index, count in Counter(chosen).items() if count > 1]
        if twice:
            return f"returned index {twice[0]} twice"
        if len(chosen) > self.want.needed:
            return f"returned {len(chosen)} indices where {self.want.needed} were asked for"
        offered = set(ready)
        for index in chosen:
            if index not in offered:
                return f"returned index {index}, which was not offered to it"
            if index not in self.takeable:
                return f"offered row {index}, which does not exist, is taken or lacks one of {list(self.want.fields)}"
        if self.choice.whole_groups and len(chosen) == self.want.needed:
            size = self.want.batch_size
            for start in range(0, len(chosen), size):
                groups = Counter(index // self.group_size for index in chosen[start : start + size])
                partial = [group for group, count in groups.items() if count != self.group_size]
                if partial:
                    return f"returned {groups[partial[0]]} of the {self.group_size} rows of group {partial[0]}"
        return ""


def _reason(code: str, rows: set[int], detail: str) -> Reason:
    """A reason that names rows of the partition: whoever knows where it begins makes global indexes of them."""
    return Reason(code, len(rows), detail, tuple(sorted(rows)[:EXAMPLES]))


def whole_numbers(answer: Any, most: int) -> list[int]:
    """The first `most` indices of a list, tensor or iterator; `TypeError` for a mask, a float or a string."""
    values = answer.tolist() if hasattr(answer, "tolist") else itertools.islice(answer, most)
    indices = [value.item() if hasattr(value, "item") else value for value in values]
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"{index!r} is no index: return a list of row numbers")
    return indices


def as_tensors(*arrays: NDArray[np.bool_]) -> tuple[Any, ...]:
    """The arrays as torch tensors where torch is installed, as they are otherwise."""
    if importlib.util.find_spec("torch") is None:
        return arrays
    import torch

    return tuple(torch.from_numpy(array) for array in arrays)


class SamplerThread:
    """Runs one custom sampler; `busy_since` is the time at which the call now under way began, or None."""

    def __init__(self, sampler: BaseSampler) -> None:
        self.sampler, self.name = sampler, repr(sampler)
        self.busy = False
        self.busy_since: float | None = None
        self._work: queue.SimpleQueue[tuple[Offer, Callable[[Outcome], None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, offer: Offer, done: Callable[[Outcome], None]) -> None:
        """Ask the sampler; `done` is called from its thread. Only one call may be under way."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"sampler {self.name}", daemon=True)
            self._thread.start()
        self.busy = True
        self._work.put((offer, done))

    def _run(self) -> None:
        as_tensors()
        while True:
            offer, done = self._work.get()
            self.busy_since = time.monotonic()
            outcome: Outcome
            try:
                outcome = offer.ask(self.sampler)
            except SamplerError as error:
                outcome = error
            except BaseException as error:  # noqa: BLE001 - even sys.exit is but the answer of whoever asked
                where = f"sampler {self.name} of task {offer.want.task!r}"
                outcome = SamplerError(f"{where} raised {_words(error)}; nothing was taken")
            self.busy_since = None
            done(outcome)


def _words(error: BaseException) -> str:
    """Kind and message of an exception whose own `__str__` may be broken too."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the message is then left out
        return type(error).__name__
