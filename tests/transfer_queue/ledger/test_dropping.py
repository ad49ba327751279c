"""Dropped rows: their groups may be put anew, and what nobody needs is freed row by row."""

import pytest

from tests.transfer_queue.ledger.clock import ledger_of, rank, want
from transfer_queue.errors import ExhaustedError, GroupError, StepClearedError
from transfer_queue.ledger import Freed, Ledger
from transfer_queue.ledger.counts import count, recount
from transfer_queue.ledger.explain import explain


def lease(ledger: Ledger, rows: int, task: str = "train", whole: bool = True) -> int:
    taken = ledger.take(want(task, rows, whole_groups=whole, lease_s=10.0))
    assert taken
    return taken.lease_id or 0


def test_dropped_groups_that_are_refilled_make_room_for_as_many_others() -> None:
    ledger, _ = ledger_of(prompts=2, partitions=1, samples=2)
    ledger.put_rows(4, ["x"], 0, ["a", "a", "b", "b"])
    version = ledger.room_version
    ledger.drop(lease(ledger, 2), "all alike", refill=True)
    assert ledger.room_version > version
    assert explain(ledger, want(batch=4, step=0)).reasons[-1].rows == 2
    new = ledger.put_rows(2, ["x"], 0, ["a", "a"])
    assert new == [4, 5]
    assert ledger.steps.places([0, *new])[1] == ["a", "a", "a"]
    with pytest.raises(GroupError, match="room for 0 more groups"):
        ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(batch=4, step=0, whole_groups=True))
    assert taken
    assert taken.indexes == [2, 3, 4, 5]
    partition = ledger.steps.alive[0]

    assert count(ledger, partition, "train") == recount(ledger, partition, "train")


def test_only_whole_groups_are_refilled_and_nothing_changes_otherwise() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(2, ["x"], 0)
    held = lease(ledger, 1, whole=False)
    before = ledger.export()
    with pytest.raises(GroupError, match="group 0 cannot be refilled: 1 of its 2 rows"):
        ledger.drop(held, "odd", refill=True)

    assert ledger.export() == before


def test_a_partition_grows_as_often_as_it_is_refilled_and_then_clears_itself() -> None:
    ledger, _ = ledger_of(prompts=2, partitions=1, samples=3, tasks=("train",))
    ledger.put_rows(6, ["x"], 0)
    for _ in range(20):
        ledger.drop(lease(ledger, 3), "all alike", refill=True)
        assert 0 in ledger.steps.alive
        ledger.put_rows(3, ["x"], 0)
    assert ledger.steps.alive[0].size >= 66
    ledger.ack(lease(ledger, 3))
    assert 0 in ledger.steps.alive
    ledger.ack(lease(ledger, 3))

    assert not ledger.steps.alive


def test_a_wait_for_rows_that_a_refill_may_bring_goes_on() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(4, ["x"], 0)
    ledger.drop(lease(ledger, 2), "all alike")
    with pytest.raises(ExhaustedError, match="at most 2"):
        ledger.take(want(batch=4, step=0, whole_groups=True))
    ledger.drop(lease(ledger, 2), "all alike", refill=True)

    assert ledger.take(want(batch=2, step=0, whole_groups=True)) is None


def test_rows_are_dropped_without_a_lease_for_all_that_have_not_taken_them() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    ledger.take(want("done", 1))
    held = lease(ledger, 2, "holder", whole=False)
    ledger.drop_rows(indexes[:3], "stale")
    ledger.drop_rows(indexes[:3], "stale again")
    ledger.release(held)
    partition = ledger.steps.alive[0]
    seen = {task: dict(partition.task(task).dropped) for task in ("done", "holder", "late")}
    assert seen == {"done": {"stale": 2}, "holder": {"stale": 3}, "late": {"stale": 3}}
    for task in seen:
        assert count(ledger, partition, task) == recount(ledger, partition, task)
    ledger.clear(0)
    ledger.drop_rows(indexes, "gone already")


def test_rows_that_every_task_is_through_with_are_freed_before_their_partition() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1, tasks=("a", "b"))
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    watching = lease(ledger, 1, "watch")
    for task in ("a", "b"):
        ledger.ack(lease(ledger, 2, task))
    assert ledger.effects == [Freed(0, None, (1,))]
    ledger.release(watching)
    assert ledger.effects[1:] == [Freed(0, None, (0,))]
    for act in (lambda: ledger.steps.locate(indexes), lambda: ledger.put_fields(indexes[:1], ["y"])):
        with pytest.raises(StepClearedError, match=r"rows \[0.*\] of step 0 were consumed by every task"):
            act()
    assert count(ledger, ledger.steps.alive[0], "watch").ready == 2
    for task in ("a", "b"):
        ledger.ack(lease(ledger, 2, task))

    assert ledger.effects[2:] == [Freed(0)]


def test_rows_consumed_without_a_lease_are_freed_when_they_are_read() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1, tasks=("a",))
    ledger.put_rows(4, ["x"], 0)
    taken = ledger.take(want("a", 3))
    assert taken
    ledger.read("a", taken.indexes[:1])
    assert ledger.effects == [Freed(0, None, (0,))]
    clock.now += 301
    ledger.expire()

    assert ledger.effects[1:] == [Freed(0, None, (1, 2))]


def test_the_rows_of_a_dp_group_are_kept_until_each_rank_has_read_its_own() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1, tasks=("a",))
    ledger.put_rows(4, ["x"], 0)
    slices = [ledger.take(want("a", 1, step=0, dp=rank(r))) for r in (0, 1)]
    for taken in slices:
        assert taken
        ledger.read("a", taken.indexes)

    assert ledger.effects == [Freed(0, None, (0,)), Freed(0, None, (1,))]


def test_a_forced_clear_of_a_partition_that_clears_itself_with_its_last_lease_frees_it_once() -> None:
    ledger, _ = ledger_of(prompts=1, samples=1, tasks=("a", "b"))
    indexes = ledger.put_rows(1, ["x"], 0)
    assert indexes
    held = lease(ledger, 1, "a")
    ledger.put_fields(indexes, ["y"], held)
    user = ledger.take(want("b", 1, fields=("y",), lease_s=10.0))
    assert user
    ledger.ack(user.lease_id or 0)
    assert ledger.clear(0, force=True)

    assert ledger.effects == [Freed(0)]


def test_rows_that_one_task_has_not_read_yet_are_kept_when_the_other_acknowledges_them() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1, tasks=("a", "b"))
    ledger.put_rows(4, ["x"], 0)
    taken = ledger.take(want("a", 2))
    assert taken
    ledger.ack(lease(ledger, 2, "b"))
    assert ledger.effects == []
    ledger.read("a", taken.indexes)

    assert ledger.effects == [Freed(0, None, (0, 1))]


def test_a_reason_for_every_drop_costs_no_memory_without_end() -> None:
    ledger, _ = ledger_of(prompts=50, partitions=1, samples=1)
    ledger.put_rows(50, ["x"], 0)
    reasons = [f"reason {number} {'x' * 1000}" for number in range(40)]
    for reason in reasons:
        ledger.drop(lease(ledger, 1), reason)
    ledger.drop_rows([40], "of a sampler")
    partition = ledger.steps.alive[0]

    expected = {reason[:256]: 1 for reason in reasons[:32]} | {"other": 9}
    assert partition.task("train").dropped == partition.task("reward").dropped == expected
    assert partition.reasons == list(expected)
    assert len(next(reversed(ledger.leases.over.values())).how) < 400
    ledger.drop(lease(ledger, 1), reasons[3])
    assert partition.task("train").dropped[reasons[3][:256]] == 2
    assert count(ledger, partition, "train") == recount(ledger, partition, "train")


def test_a_ledger_that_was_saved_with_more_reasons_can_be_read() -> None:
    ledger, clock = ledger_of(prompts=50, partitions=1, samples=1)
    ledger.put_rows(50, ["x"], 0)
    with pytest.MonkeyPatch.context() as before:
        before.setattr("transfer_queue.ledger.partition.MOST_REASONS", 1000)
        for number in range(40):
            ledger.drop(lease(ledger, 1), f"reason {number}")
    ledger = Ledger.restore(ledger.export(), clock)
    ledger.drop(lease(ledger, 1), "one more")
    ledger.drop(lease(ledger, 1), "reason 39")
    dropped = ledger.steps.alive[0].task("reward").dropped

    assert (len(dropped), dropped["other"], dropped["reason 39"]) == (41, 1, 2)
