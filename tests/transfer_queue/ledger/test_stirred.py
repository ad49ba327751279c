"""Who waits needs to be tried again only when its task and step are stirred."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.transfer_queue.ledger.clock import Clock, ledger_of, rank, want
from transfer_queue.errors import TransferQueueError
from transfer_queue.ledger import Ledger, QueueShape, Taken, Want, stand

TASKS = st.sampled_from(["a", "b"])
STEPS = st.one_of(st.none(), st.integers(0, 2))
FIELDS = st.sampled_from([("x",), ("y",), ("x", "y")])


class Mirror:
    """Two ledgers that are told the same. In one everybody who waits is tried after every act, in the other only who
    is stirred; both must serve the same requests at the same moments."""

    def __init__(self, make: Callable[[], Ledger]) -> None:
        self.eager, self.lazy = make(), make()
        self.waiting: list[Want] = []

    def tell(self, act: Callable[[Ledger], object]) -> None:
        for ledger in (self.eager, self.lazy):
            try:
                act(ledger)
            except TransferQueueError:
                continue
        self.serve()

    def serve(self) -> None:
        while True:
            stirred = set(self.lazy.stirred)
            self.lazy.stirred.clear()
            served = False
            for request in list(self.waiting):
                expected = attempt(self.eager, request)
                stirred |= self.lazy.stirred  # by requests that were served in this round
                concerned = {task for task, step in stirred if request.step in (None, step)}
                if request.task in concerned:
                    assert attempt(self.lazy, request) == expected
                else:
                    assert expected is None, f"{request} was to be served, but {stirred} does not concern it"
                if expected is not None:
                    self.waiting.remove(request)
                    served = True
            if not served and not self.lazy.stirred:
                return

    def ask(self, request: Want) -> None:
        expected = attempt(self.eager, request)
        assert attempt(self.lazy, request) == expected
        if expected is None:
            self.waiting.append(request)
        self.serve()


def attempt(ledger: Ledger, request: Want) -> Taken | str | None:
    try:
        return ledger.take(request)
    except TransferQueueError as error:
        return str(error)


class StirredMachine(RuleBasedStateMachine):
    ledger_class = Ledger

    @initialize(
        prompts=st.integers(1, 3), samples=st.integers(1, 3), tasks=st.sampled_from([(), ("a",), ("a", "b")]),
        views=st.sampled_from([1, 8]),
    )  # fmt: skip
    def begin(self, prompts: int, samples: int, tasks: tuple[str, ...], views: int) -> None:
        stand.VIEWS_PER_TASK = views
        self.clock, self.samples = Clock(), samples
        shape = QueueShape(prompts, 2, samples, tasks)
        self.both = Mirror(lambda: self.ledger_class(shape, self.clock))

    def teardown(self) -> None:
        stand.VIEWS_PER_TASK = 8

    @property
    def rows(self) -> list[int]:
        return [p.base + row for p in self.both.eager.steps.in_order() for row in range(p.size) if p.exists[row]]

    @rule(groups=st.integers(1, 3), step=STEPS)
    def put(self, groups: int, step: int | None) -> None:
        self.both.tell(lambda ledger: ledger.put_rows(groups * self.samples, ["x"], step))

    @rule(label=st.sampled_from("pq"), step=STEPS, fields=st.sampled_from([["x"], ["x", "y"]]))
    def put_one(self, label: str, step: int | None, fields: list[str]) -> None:
        self.both.tell(lambda ledger: ledger.put_rows(1, fields, step, [label]))

    @rule(data=st.data(), leased=st.booleans())
    def put_field(self, data: st.DataObject, leased: bool) -> None:
        if self.rows:
            chosen = data.draw(st.lists(st.sampled_from(self.rows), unique=True, min_size=1, max_size=4))
            lease = self.lease(data) if leased else None
            self.both.tell(lambda ledger: ledger.put_fields(chosen, ["y"], lease))

    @rule(
        task=TASKS, fields=FIELDS, units=st.integers(1, 3), whole=st.booleans(), step=STEPS,
        lease=st.sampled_from([None, 5]), dp=st.sampled_from([None, None, rank(0), rank(1), rank(0, 2, "h")]),
    )  # fmt: skip
    def ask(
        self, task: str, fields: tuple[str, ...], units: int, whole: bool, step: int | None, **rest: object
    ) -> None:
        batch = units * self.samples if whole else units
        request = want(task, batch, fields=fields, step=step, whole_groups=whole, lease_s=rest["lease"], dp=rest["dp"])
        self.both.ask(request)

    def lease(self, data: st.DataObject) -> int:
        live = sorted(self.both.eager.leases.live)
        return data.draw(st.sampled_from(live)) if live else 0

    @rule(data=st.data(), place=st.integers(0, 1), version=st.sampled_from([None, 1, 2]))
    def ack(self, data: st.DataObject, place: int, version: int | None) -> None:
        lease = self.lease(data)
        self.both.tell(lambda ledger: ledger.ack(lease, place, version))

    @rule(version=st.integers(0, 1))
    def rollback(self, version: int) -> None:
        self.both.tell(lambda ledger: ledger.rollback(version))

    @rule(data=st.data(), field=st.sampled_from("xyy"))
    def lose(self, data: st.DataObject, field: str) -> None:
        if self.rows:
            chosen = data.draw(st.lists(st.sampled_from(self.rows), unique=True, min_size=1, max_size=4))
            self.both.tell(lambda ledger: ledger.lose(chosen, [field]))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self.lease(data)
        self.both.tell(lambda ledger: ledger.release(lease))

    @rule(data=st.data(), refill=st.booleans())
    def drop(self, data: st.DataObject, refill: bool) -> None:
        lease = self.lease(data)
        self.both.tell(lambda ledger: ledger.drop(lease, "stale", refill))

    @rule(data=st.data())
    def drop_rows(self, data: st.DataObject) -> None:
        if self.rows:
            chosen = data.draw(st.lists(st.sampled_from(self.rows), unique=True, min_size=1, max_size=2))
            self.both.tell(lambda ledger: ledger.drop_rows(chosen, "old"))

    @rule(seconds=st.sampled_from([1, 6, 400]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.now += seconds
        self.both.tell(lambda ledger: ledger.expire())

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.rows:
            chosen = data.draw(st.lists(st.sampled_from(self.rows), unique=True, min_size=1, max_size=4))
            task = data.draw(TASKS)
            self.both.tell(lambda ledger: ledger.read(task, chosen))

    @rule(step=st.integers(0, 2))
    def clear(self, step: int) -> None:
        self.both.tell(lambda ledger: ledger.clear(step, force=True))

    @invariant()
    def both_stand_alike(self) -> None:
        if hasattr(self, "both"):
            alive = [[p.step for p in ledger.steps.in_order()] for ledger in (self.both.eager, self.both.lazy)]
            assert alive[0] == alive[1]


StirredMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestStirred = StirredMachine.TestCase


class ForgetsToStir(Ledger):
    """A ledger with a fault: who waits for rows is not told that they came."""

    def put_rows(
        self, count: int, fields: Sequence[str], step: int | None, labels: Sequence[str | int] | None = None
    ) -> list[int] | None:
        before = set(self.stirred)
        indexes = super().put_rows(count, fields, step, labels)
        self.stirred.intersection_update(before)
        return indexes


def test_a_ledger_that_forgets_to_stir_is_caught() -> None:
    class Mutant(StirredMachine):
        ledger_class = ForgetsToStir

    once = [Phase.generate]
    quick = settings(max_examples=500, stateful_step_count=30, deadline=None, derandomize=True, phases=once)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Mutant, settings=quick)


def test_a_wait_whose_view_was_forgotten_is_stirred_by_every_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand, "VIEWS_PER_TASK", 1)
    ledger, _ = ledger_of(prompts=4, samples=1)
    indexes = ledger.put_rows(2, ["x"], 0)
    assert indexes
    assert ledger.take(want("a", 1, fields=("y",))) is None
    assert ledger.take(want("a", 4, fields=("x",))) is None
    ledger.stirred.clear()
    ledger.put_fields(indexes[:1], ["y"])

    assert ledger.stirred == {("a", 0)}


def test_only_those_are_stirred_who_may_find_more() -> None:
    ledger, _ = ledger_of(prompts=4, samples=2)
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    for task, fields in (("a", ("y",)), ("b", ("z",))):
        assert ledger.take(want(task, 2, fields=fields, whole_groups=True)) is None
    ledger.stirred.clear()
    ledger.put_fields(indexes[:1], ["y"])
    assert ledger.stirred == set()
    ledger.put_fields(indexes[1:2], ["y"])
    assert ledger.stirred == {("a", 0)}
    ledger.stirred.clear()
    ledger.clear(0)

    assert ledger.stirred == {("a", 0), ("b", 0)}
