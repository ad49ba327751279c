"""The ledger beside an obviously right model: the same rows for every request, and no row lost or counted twice."""

from collections.abc import Callable, Set
from typing import Any, Self

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.transfer_queue.ledger.clock import Clock, rank, want
from tests.transfer_queue.ledger.model import Held, Model, Row
from transfer_queue.errors import ExhaustedError, FieldLostError, GroupError, LeaseError, StepClearedError
from transfer_queue.ledger import Ledger, LedgerState, QueueShape, Taken, Want
from transfer_queue.ledger.counts import count, recount
from transfer_queue.ledger.lease import Part
from transfer_queue.ledger.shape import ROW_BITS, first_index, split_index
from transfer_queue.ledger.view import FREE

TASKS = st.sampled_from(["a", "b"])
STEPS = st.integers(0, 2)
FIELDS = st.sampled_from([("x",), ("x",), ("y",), ("x", "y"), ("y", "z")])
LEASES = st.sampled_from([None, None, 3, 10, 20])
PICK = st.integers(0, 10_000)
VERSIONS = st.sampled_from([None, 0, 1, 2, 3])


def through_bytes(state: LedgerState) -> LedgerState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=LedgerState)


class LedgerMachine(RuleBasedStateMachine):
    ledger_class = Ledger

    @initialize(prompts=st.integers(1, 4), samples=st.integers(1, 3), tasks=st.sampled_from([(), ("a",), ("a", "b")]))
    def begin(self, prompts: int, samples: int, tasks: tuple[str, ...]) -> None:
        self.clock = Clock()
        self.samples = samples
        self.ledger = self.ledger_class(QueueShape(prompts, 2, samples, tasks), self.clock)
        self.model = Model(prompts, 2, samples, tasks)
        self.model.now = self.clock.now
        self.leases: dict[int, Held] = {}
        self.stored: set[tuple[int, str]] = set()
        self.names: dict[tuple[int, int], str | int] = {}
        self.retired: set[tuple[int, int]] = set()

    def held(self, pick: int) -> tuple[int, Held] | None:
        live = [(key, held) for key, held in self.leases.items() if held in self.model.held]
        return live[pick % len(live)] if live else None

    @rule(groups=st.integers(1, 3), step=st.one_of(st.none(), STEPS), fields=st.sampled_from([["x"], ["x", "y"]]))
    def put_groups(self, groups: int, step: int | None, fields: list[str]) -> None:
        self.put(groups * self.samples, step, fields, None)

    @rule(label=st.sampled_from("pqr"), step=st.one_of(st.none(), STEPS))
    def put_one(self, label: str, step: int | None) -> None:
        self.put(1, step, ["x"], [label])

    def put(self, rows: int, step: int | None, fields: list[str], labels: list[str] | None) -> None:
        try:
            indexes = self.ledger.put_rows(rows, fields, step, labels)
        except GroupError:
            return
        if indexes is None:
            assert len(self.model.steps()) == 2 or (step is None and rows > self.samples)
            return
        assert len(set(indexes)) == rows
        assert set(indexes).isdisjoint(self.model.rows)
        steps, names = self.ledger.steps.places(indexes)
        assert labels is None or names == labels
        for index, where, name in zip(indexes, steps, names, strict=True):
            serial, row = split_index(index)
            group = (serial, row // self.samples)
            self.model.rows[index] = Row(where, serial, group, set(fields), frozenset(fields))
            assert self.names.setdefault(group, name) == name
        self.stored |= {(index, name) for index in indexes for name in fields}
        assert step is None or set(steps) == {step}
        assert len(self.model.steps()) <= 2

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICK, size=st.integers(1, 5), field=st.sampled_from("yz"))
    def put_field(self, pick: int, size: int, field: str) -> None:
        lacking = [i for i, row in self.model.rows.items() if field not in row.fields and not row.freed]
        chosen = [lacking[(pick + 3 * i) % len(lacking)] for i in range(size)] if lacking else []
        chosen = list(dict.fromkeys(chosen))
        if chosen:
            self.ledger.put_fields(chosen, [field])
            self.model.write(chosen, field, None)
            self.stored |= {(index, field) for index in chosen}
            self.check_effects()

    @rule(pick=PICK, field=st.sampled_from("yz"), part=st.booleans())
    def put_field_under_lease(self, pick: int, field: str, part: bool) -> None:
        found = self.held(pick)
        if found is None:
            return
        lease, held = found
        rows = [index for index in held.rows if field not in self.model.rows[index].fields]
        rows = rows[:1] if part else rows
        if rows:
            self.ledger.put_fields(rows, [field], lease)
            self.model.write(rows, field, held)
            self.stored |= {(index, field) for index in rows}
            self.check_effects()

    @rule(
        task=TASKS, fields=FIELDS, units=st.integers(1, 3), whole=st.booleans(),
        step=st.one_of(st.none(), STEPS), lease=LEASES,
    )  # fmt: skip
    def take(
        self, task: str, fields: tuple[str, ...], units: int, whole: bool, step: int | None, lease: int | None
    ) -> None:
        batch = units * self.samples if whole else units
        request = want(task, batch, fields=fields, step=step, whole_groups=whole, lease_s=lease)
        expected = self.model.choose(task, fields, batch, step, whole)
        taken = self.attempt(request, expected)
        if taken is None or expected is None:
            return
        assert taken.indexes == expected
        self.model.note_read(task, expected, fields)
        if lease is None:
            self.model.set_state(task, expected, "consumed")
            self.model.hold(task, expected)
        else:
            self.model.set_state(task, expected, "leased")
            held = Held(task, expected, fields, self.clock.now + lease)
            assert taken.lease_id is not None
            self.leases[taken.lease_id] = held
            self.model.held.append(held)
        self.check_effects()

    @rule(
        task=TASKS, group=st.sampled_from("gh"), place=st.integers(0, 1), batch=st.integers(1, 2),
        step=st.one_of(st.none(), STEPS), lease=LEASES,
    )  # fmt: skip
    def take_rank(self, task: str, group: str, place: int, batch: int, step: int | None, lease: int | None) -> None:
        key = (task, step, group)
        held = self.model.groups.get(key)
        if key in self.model.complete:
            return
        if held is not None:
            batch, lease = len(held.rows) // 2, 5 if held.asks_ack else None
        fields = ("x",)
        request = want(task, batch, fields=fields, step=step, dp=rank(place, 2, group), lease_s=lease, patience_s=30.0)
        expected = held.rows if held else self.model.choose(task, fields, 2 * batch, step, whole=False)
        taken = self.attempt(request, expected)
        if taken is None or expected is None:
            return
        assert taken.indexes == expected[place * batch : (place + 1) * batch]
        if held is None:
            self.model.note_read(task, expected, fields)
            self.model.set_state(task, expected, "leased")
            seconds = 30 if lease is None else lease
            held = Held(task, expected, fields, self.clock.now + seconds, 2, key=key, asks_ack=lease is not None)
            self.model.groups[key] = held
            self.model.held.append(held)
        if lease is None:
            self.model.vote(held, place)
        else:
            held.deadline = max(held.deadline, self.clock.now + lease)
            assert taken.lease_id is not None
            self.leases[taken.lease_id] = held
        self.check_effects()

    def attempt(self, request: Want, expected: list[int] | None) -> Taken | None:
        joins = self.ledger.reservations.find(request) is not None
        try:
            taken = self.ledger.take(request)
        except ExhaustedError:
            assert expected is None
            assert not self.model.possible(request.task, request.needed, request.step, request.whole_groups)
            return None
        except StepClearedError:
            assert request.step not in self.model.steps()
            return None
        assert (taken is None) == (expected is None)
        if taken is None:
            assert self.model.possible(request.task, request.needed, request.step, request.whole_groups) or joins
        return taken

    @rule(task=TASKS, batch=st.integers(1, 3), version=VERSIONS, finish=st.sampled_from([True, True, False]))
    def work(self, task: str, batch: int, version: int | None, finish: bool) -> None:
        """What tasks do all day: the first makes y from x, the second z from x and y."""
        reads, makes = (("x",), "y") if task == "a" else (("x", "y"), "z")
        before = set(self.leases)
        self.take(task, reads, batch, False, None, 20)
        for lease in set(self.leases) - before:
            held = self.leases[lease]
            rows = [index for index in held.rows if makes not in self.model.rows[index].fields]
            if rows:
                self.ledger.put_fields(rows, [makes], lease)
                self.model.write(rows, makes, held)
                self.stored |= {(index, makes) for index in rows}
            if finish:
                self.ledger.ack(lease, None, version)
                self.model.vote(held, 0, version)
            self.check_effects()

    @rule(pick=PICK, place=st.integers(0, 1), version=VERSIONS)
    def ack(self, pick: int, place: int, version: int | None) -> None:
        found = self.held(pick)
        if found is not None:
            lease, held = found
            self.ledger.ack(lease, place, version)
            self.model.vote(held, place if held.votes_needed > 1 else 0, version)
            self.check_effects()

    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        found = self.held(pick)
        if found is not None:
            self.ledger.release(found[0])
            self.model.give_back(found[1])
            self.check_effects()

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, act=st.sampled_from(["ack", "extend", "release", "put"]))
    def come_too_late(self, pick: int, act: str) -> None:
        over = [(key, held) for key, held in self.leases.items() if held not in self.model.held]
        over = [(key, held) for key, held in over if held.key not in self.model.complete]
        if over:
            lease, held = over[pick % len(over)]
            with pytest.raises(FieldLostError if held.lost else LeaseError):
                {
                    "ack": lambda: self.ledger.ack(lease, 0),
                    "extend": lambda: self.ledger.extend(lease, 5),
                    "release": lambda: self.ledger.release(lease),
                    "put": lambda: self.ledger.put_fields(held.rows, ["late"], lease),
                }[act]()

    @rule(pick=PICK, really=st.sampled_from([False, False, True]), refill=st.booleans())
    def drop(self, pick: int, really: bool, refill: bool) -> None:
        found = self.held(pick)
        if found is None or not really:
            return
        lease, held = found
        refill = refill and self.refillable(held.rows, lambda: self.ledger.drop(lease, "stale", refill=True))
        if not refill:
            self.ledger.drop(lease, "stale")
        if refill:
            self.retire(held.rows)
        self.model.drop_held(held)
        self.check_effects()

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICK, size=st.integers(1, 4), refill=st.booleans(), really=st.sampled_from([False, False, True]))
    def drop_rows(self, pick: int, size: int, refill: bool, really: bool) -> None:
        if not really:
            return
        there = [index for index, row in self.model.rows.items() if not row.freed] or list(self.model.rows)
        group = self.model.rows[there[pick % len(there)]].group
        chosen = [index for index in there if self.model.rows[index].group == group][: None if refill else size]
        rows = [index for index in chosen if not self.model.rows[index].freed]
        refill = refill and self.refillable(rows, lambda: self.ledger.drop_rows(chosen, "old", refill=True))
        if not refill:
            self.ledger.drop_rows(chosen, "old")
        if refill:
            self.retire(rows)
        self.model.drop(rows)
        self.check_effects()

    def refillable(self, rows: list[int], drop: Callable[[], None]) -> bool:
        """Whether the rows were dropped, as they are whole groups that were not given up before."""
        fresh = not any(self.model.rows[index].group in self.retired for index in rows)
        if rows and not (fresh and self.model.whole(rows)):
            with pytest.raises(GroupError, match="cannot be refilled"):
                drop()
            return False
        drop()
        return True

    def retire(self, rows: list[int]) -> None:
        self.retired |= {self.model.rows[index].group for index in rows}
        self.model.retire(rows)

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICK, size=st.integers(1, 5), names=st.sampled_from([{"y"}, {"y"}, {"z"}, {"y", "z"}, {"x"}]))
    def lose(self, pick: int, size: int, names: set[str]) -> None:
        everything = list(self.model.rows)
        chosen = list(dict.fromkeys(everything[(pick + 3 * i) % len(everything)] for i in range(size)))
        self.ledger.lose(chosen, sorted(names))
        before = {(index, name) for index in chosen for name in self.model.rows[index].fields & names}
        self.model.lose(chosen, names)
        self.stored -= before
        self.check_effects(forgiven=before)

    @rule(version=st.integers(0, 3))
    def rollback(self, version: int) -> None:
        rolled = self.ledger.rollback(version)
        gone = [i for i, row in self.model.rows.items() if row.freed and max([-1, *row.versions.values()]) > version]
        assert rolled.gone_rows == sorted(gone)
        assert rolled.gone_steps == self.model.gone_steps(version)
        assert {task: sorted(rows) for task, rows in rolled.rows.items()} == self.model.rollback(version)
        self.check_effects()

    @precondition(lambda self: self.model.rows)
    @rule(task=TASKS, pick=PICK, size=st.integers(1, 6))
    def read(self, task: str, pick: int, size: int) -> None:
        there = [index for index, row in self.model.rows.items() if not row.freed]
        chosen = list(dict.fromkeys(there[(pick + i) % len(there)] for i in range(size))) if there else []
        if chosen:
            self.ledger.read(task, chosen)
            self.model.see(task, chosen)
            self.check_effects()

    @rule(seconds=st.sampled_from([1, 2, 5, 12, 200]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.now += seconds
        self.model.now = self.clock.now
        late = [held for held in self.model.held if held.deadline <= self.clock.now]
        for held in sorted(late, key=lambda held: held.deadline):
            self.model.give_back(held)
        unread = [hold for hold in self.model.holds if hold[0] <= self.clock.now]
        self.model.holds = [hold for hold in self.model.holds if hold not in unread]
        assert self.ledger.expire() == len(late) + len(unread)
        self.check_effects()

    @rule(step=STEPS, really=st.sampled_from([False, False, True]))
    def clear(self, step: int, really: bool) -> None:
        if not really:
            return
        assert self.ledger.clear(step, force=True) == (step in self.model.steps())
        gone = {row.serial for row in self.model.of_step(step)}
        self.model.clear(step)
        self.check_effects(cleared=gone)

    def check_effects(self, cleared: Set[int] = frozenset(), forgiven: Set[tuple[int, str]] = frozenset()) -> None:
        """What was freed is what nobody can need, each once."""
        serials = {row.step: row.serial for row in self.model.rows.values()}
        freed, steps = self.model.settle()
        expected = set(cleared) | {serials[step] for step in steps}
        for each in self.ledger.effects:
            indexes = [first_index(each.serial) + row for row in each.rows]
            if each.field is not None:
                cells = {(index, each.field) for index in indexes}
                assert cells <= self.stored | forgiven
                self.stored -= cells
            elif each.rows:
                assert set(indexes) <= freed or each.serial in cleared
                freed -= set(indexes)
            else:
                expected.remove(each.serial)
            gone = {cell for cell in self.stored if each.field is None and cell[0] in indexes}
            self.stored -= gone | {cell for cell in self.stored if not each.rows and cell[0] >> ROW_BITS == each.serial}
        assert not freed
        assert not expected
        assert self.stored == {(i, name) for i, row in self.model.rows.items() if not row.freed for name in row.fields}
        self.ledger.effects.clear()

    @rule()
    def restart(self) -> None:
        state = through_bytes(self.ledger.export())
        self.ledger = self.ledger_class.restore(state, self.clock)
        assert through_bytes(self.ledger.export()) == state

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for partition in self.ledger.steps.in_order():
            mine = [row for row in self.model.rows.values() if row.step == partition.step]
            for task in ("a", "b"):
                counts = count(self.ledger, partition, task)
                assert counts == recount(self.ledger, partition, task)
                assert counts.conserved
                states = [row.state(task) for row in mine]
                expected = (len(mine), states.count("leased"), states.count("consumed"), states.count("dropped"))
                assert (counts.produced, counts.leased, counts.consumed, counts.dropped) == expected


LedgerMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLedger = pytest.mark.timeout(400)(LedgerMachine.TestCase)  # what fails is told after minutes of shrinking


class LosesOneRow(Ledger):
    """A ledger with a fault: of the rows that are given back, the last one is forgotten."""

    def move(self, task: str, parts: list[Part], before: int, after: int, *rest: Any, **more: Any) -> None:
        if after == FREE:
            parts = [(partition, rows[:-1]) for partition, rows in parts]
        super().move(task, parts, before, after, *rest, **more)


class ForgetsOneRow(Ledger):
    """A ledger with a fault: one row that a task has taken is free again after a restart."""

    @classmethod
    def restore(cls, state: LedgerState, clock: Callable[[], float]) -> Self:
        ledger = super().restore(state, clock)
        for partition in ledger.steps.in_order():
            for stand in partition.tasks.values():
                stand.state[np.flatnonzero(stand.state)[:1]] = FREE
                stand.recount()
        return ledger


@pytest.mark.parametrize("faulty", [LosesOneRow, ForgetsOneRow])
def test_a_ledger_that_loses_one_row_is_caught(faulty: type[Ledger]) -> None:
    class Mutant(LedgerMachine):
        ledger_class = faulty

    once = [Phase.generate]
    quick = settings(max_examples=200, stateful_step_count=30, deadline=None, derandomize=True, phases=once)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Mutant, settings=quick)
