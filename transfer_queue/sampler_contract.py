"""What every sampler owes the controller, tried on random partitions; each breach is one sentence.

The rules about what is taken are the controller's own (`Offer.ask`); those about arguments, repetition and empty
input are tried here, because a controller cannot see a breach of them: it only hands out copies.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from transfer_queue.errors import SamplerError
from transfer_queue.ledger import DPPlace, Want
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.registry import Choice
from transfer_queue.samplers.travel import build, spec_of
from transfer_queue.samplers.values import spread
from transfer_queue.sampling import Offer, whole_numbers

MakeValue = Callable[[random.Random], Any]
SHOWN = 12
"""Indices of a list that a sentence shows."""


def any_length(rng: random.Random) -> int:
    """The value of a field of which nothing is known: a whole number above zero."""
    return rng.randint(1, 1000)


def random_offer(
    rng: random.Random,
    sampler: BaseSampler,
    num_n_samples: int,
    params: Mapping[str, Any],
    values: Mapping[str, MakeValue],
) -> Offer:
    """A partition in any state, and any request for some of its rows."""
    groups, fields = rng.randint(1, 8), ["x", "y", *sampler.value_fields]
    capacity = groups * num_n_samples
    exists, taken = _marks(rng, capacity, [0.0, 0.6, 1.0]), _marks(rng, capacity, [0.0, 0.2, 0.7])
    has = {field: exists & _marks(rng, capacity, [0.3, 0.9, 1.0]) for field in fields}
    want = _random_want(rng, groups, num_n_samples, sampler.whole_groups)
    ready = exists & ~taken
    for field in want.fields:
        ready = ready & has.get(field, False)
    return Offer(
        want=want,
        choice=Choice(want.whole_groups, want.dp, None, sampler, dict(params)),
        group_size=num_n_samples,
        version=0,
        rows=np.flatnonzero(exists).tolist(),
        takeable=frozenset(np.flatnonzero(ready).tolist()),
        produced=np.stack(list(has.values()), axis=1),
        taken=taken,
        columns={field: column for column, field in enumerate(has)},
        values={
            field: _values(rng, has[field] & ~taken, values.get(field, any_length)) for field in sampler.value_fields
        },
    )


def _random_want(rng: random.Random, groups: int, num_n_samples: int, whole_groups: bool) -> Want:
    fields = rng.choice([("x",), ("y", "x"), ("x", "nobody puts this")])
    whole, ranks = whole_groups or rng.random() < 0.5, rng.randint(1, min(3, groups))
    batch = rng.randint(1, groups // ranks) * num_n_samples
    if not whole:
        batch = rng.randint(1, batch)
    return Want("check", fields, batch, None, whole, DPPlace(0, ranks, "check") if ranks > 1 else None)


def _marks(rng: random.Random, count: int, chances: list[float]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    chance = rng.choice(chances)
    return np.array([rng.random() < chance for _ in range(count)], dtype=np.bool_)


def _values(rng: random.Random, there: np.ndarray[Any, np.dtype[np.bool_]], make: MakeValue) -> Any:
    rows = np.flatnonzero(there)
    return spread(len(there), rows, np.array([make(rng) for _ in rows], dtype=np.float64))


class Contract:
    """Tries one sampler; `breaches` holds the first sentence for each rule that it broke."""

    def __init__(self, sampler: BaseSampler) -> None:
        self.sampler = sampler
        self.breaches: dict[str, str] = {}
        self.served = 0

    def breach(self, rule: str, sentence: str) -> None:
        self.breaches.setdefault(rule, f"{self.sampler!r}: {sentence}")

    def travels(self, offers: list[Offer]) -> bool:
        """Whether the sampler can be sent to a controller and answers there as it does here."""
        try:
            again = build(spec_of(self.sampler))
        except SamplerError as error:
            self.breach("travels", str(error))
            return False
        if type(again) is not type(self.sampler):
            self.breach("travels", f"it arrives in another process as {again!r}")
            return False
        for offer in offers if self.sampler.deterministic else []:
            here, there = _answer(offer, self.sampler), _answer(offer, again)
            if here != there:
                self.breach(
                    "travels",
                    f"it answers {_shown(here)} here and {_shown(there)} where it was built anew from its "
                    "constructor's arguments: keep every setting in those",
                )
        return True

    def empty(self, offer: Offer) -> None:
        """A partition without rows, and no ready rows to choose from."""
        nothing = replace(offer, rows=[], takeable=frozenset(), produced=np.zeros_like(offer.produced))
        found = self.call("filter_ready_indices", nothing.status(), nothing.extra())
        if found:
            self.breach("empty", f"filter_ready_indices returned {_shown(found)} for a partition without rows")
        chosen = self.call("sample", ([], offer.want.needed), offer.extra())
        if chosen:
            self.breach("empty", f"sample returned {_shown(chosen)} where no row was ready")

    def obeys(self, offer: Offer) -> None:
        """One partition through all methods."""
        if self.call("reject", offer.status(), offer.extra()) is None:
            return
        try:
            rejected = offer.rejected(self.sampler)
        except Exception as error:  # noqa: BLE001 - a breach, whatever it is
            self.breach("reject", _words(error))
            return
        left = offer.without(row for rows in rejected.values() for row in rows)
        ready = self.call("filter_ready_indices", left.status(), left.extra())
        if ready is not None and self._is_ready(left, ready):
            self._chooses(left, ready)

    def _is_ready(self, offer: Offer, answer: Any) -> bool:
        try:
            ready = whole_numbers(answer, len(offer.produced) + 1)
        except TypeError as error:
            self.breach("indices", f"filter_ready_indices returned {_shown(answer)}: {error}")
            return False
        for row in ready:
            if row not in offer.takeable:
                self.breach("ready", f"filter_ready_indices returned row {row}, which {_why_not(offer, row)}")
                return False
        if len(set(ready)) < len(ready):
            self.breach("duplicates", f"filter_ready_indices returned a row twice: {_shown(ready)}")
        return True

    def _chooses(self, offer: Offer, ready: Any) -> None:
        rows = whole_numbers(ready, len(offer.produced) + 1)
        if self.call("sample", (rows, offer.want.needed), offer.extra()) is None:
            return
        self.call("explain_withheld", (sorted(offer.takeable.difference(rows)),), offer.extra())
        try:
            self.served += len(offer.ask(self.sampler).chosen)
        except Exception as error:  # noqa: BLE001 - a breach, whatever it is
            self.breach("chosen", f"of the ready rows {_shown(rows)}, {offer.want.needed} asked for: {_words(error)}")

    def call(self, method: str, arguments: tuple[Any, ...], extra: dict[str, Any]) -> Any:
        """The answer of one method, or None if it raised; its arguments are the same after as before."""
        before = copy.deepcopy((arguments, extra))
        again = copy.deepcopy((arguments, extra))
        try:
            answer = self._ask(method, arguments, extra)
        except Exception as error:  # noqa: BLE001 - a breach, whatever it is
            self.breach("raises", f"{method}({_shown(before[0][0])}, …) raised {type(error).__name__}: {error}")
            return None
        for name, was, now in _pairs(method, before, (arguments, extra)):
            if not _same(was, now):
                self.breach("mutates", f"{method} changed its argument {name} from {_shown(was)} to {_shown(now)}")
        if self.sampler.deterministic:
            self._repeats(method, answer, again)
        return answer

    def _ask(self, method: str, arguments: tuple[Any, ...], extra: dict[str, Any]) -> Any:
        answer = getattr(self.sampler, method)(*arguments, **extra)
        return list(answer) if hasattr(answer, "__next__") else answer

    def _repeats(self, method: str, answer: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        second = self._ask(method, *arguments)
        if not _same(answer, second):
            self.breach(
                "deterministic",
                f"{method} answered {_shown(answer)} and then {_shown(second)} to the same arguments; set "
                "deterministic = False in the class if that is meant",
            )


def _answer(offer: Offer, sampler: BaseSampler) -> Any:
    try:
        answer = offer.ask(sampler)
    except Exception as error:  # noqa: BLE001 - compared, and told elsewhere
        return type(error).__name__
    return answer.chosen, answer.rejected


def _why_not(offer: Offer, row: int) -> str:
    if row not in offer.rows:
        return "was not put"
    if offer.taken[row]:
        return "the task holds, has consumed or cannot have (consumption_status)"
    columns = {field: offer.columns.get(field) for field in offer.want.fields}
    lacking = [field for field, column in columns.items() if column is None or not offer.produced[row, column]]
    return f"lacks {lacking} of the data_fields {list(offer.want.fields)}"


def _pairs(method: str, before: tuple[Any, Any], after: tuple[Any, Any]) -> list[tuple[str, Any, Any]]:
    names = {
        "sample": ("ready_indices", "batch_size"),
        "explain_withheld": ("withheld",),
    }.get(method, ("all_indices", "production_status", "consumption_status", "data_fields", "field_mapping"))
    positional = list(zip(names, before[0], after[0], strict=True))
    return positional + [(key, before[1][key], after[1][key]) for key in before[1]]


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments or answers are equal, arrays and tensors included; NaN equals NaN."""
    plain = [value.tolist() if hasattr(value, "tolist") else value for value in (one, other)]
    return repr(plain[0]) == repr(plain[1])


def _shown(value: Any) -> str:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list) and len(plain) > SHOWN:
        return f"{plain[:SHOWN]!r:.120} and {len(plain) - SHOWN} more"
    return f"{plain!r:.200}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, SamplerError) else f"{type(error).__name__}: {error}"
