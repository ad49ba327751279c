import gc
import tracemalloc
import weakref

import pytest

from tests.transfer_queue.ledger.clock import ledger_of, rank, want
from transfer_queue.errors import ExhaustedError, FieldError, GroupError, LeaseError, StepClearedError
from transfer_queue.ledger.counts import count
from transfer_queue.ledger.shape import first_index, split_index


def test_rows_are_taken_in_order_and_once() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(8, ["x"], 0)
    taken = [ledger.take(want(batch=4)), ledger.take(want(batch=4))]

    assert indexes == [index for each in taken if each for index in each.indexes]
    assert ledger.take(want(batch=4)) is None


def test_each_task_consumes_every_row_for_itself() -> None:
    ledger, _ = ledger_of()
    ledger.put_rows(4, ["x"], 0)

    assert ledger.take(want("a", 4)) == ledger.take(want("b", 4))


def test_a_row_is_ready_when_its_last_field_is_there() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    request = want(batch=2, fields=("x", "y"))
    assert ledger.take(request) is None
    ledger.put_fields(indexes[1:3], ["y"])
    taken = ledger.take(request)

    assert taken is not None
    assert taken.indexes == indexes[1:3]


def test_a_field_is_written_once_per_row_and_nothing_changes_otherwise() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    ledger.put_fields(indexes[:2], ["y"])
    with pytest.raises(FieldError, match=r"field 'y' of rows \[1\]"):
        ledger.put_fields(indexes[1:], ["y"])

    assert ledger.take(want(batch=4, fields=("y",))) is None
    ledger.put_fields(indexes[2:], ["y"])


def test_an_acknowledged_lease_consumes_and_a_second_ack_is_an_error() -> None:
    ledger, _ = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(lease_s=10.0))
    assert taken
    assert taken.lease_id is not None
    ledger.ack(taken.lease_id)
    with pytest.raises(LeaseError, match="was acknowledged"):
        ledger.ack(taken.lease_id)
    with pytest.raises(LeaseError, match="lease 99 is unknown"):
        ledger.ack(99)

    assert count(ledger, ledger.steps.alive[0], "train").consumed == 2


def test_release_gives_rows_back_in_order() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(8, ["x"], 0)
    assert indexes
    first = ledger.take(want(batch=2, lease_s=10.0))
    second = ledger.take(want(batch=2, lease_s=10.0))
    assert first
    assert second
    assert second.lease_id
    assert first.lease_id
    ledger.release(second.lease_id)
    ledger.release(first.lease_id)
    again = ledger.take(want(batch=4))

    assert again is not None
    assert again.indexes == indexes[:4]


def test_expiry_gives_rows_back_and_a_late_ack_names_the_lease() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(lease_s=10.0, client="slow"))
    assert taken
    assert taken.lease_id
    clock.now += 9.9
    assert ledger.expire() == 0
    clock.now += 0.2
    assert ledger.expire() == 1
    with pytest.raises(LeaseError, match=r"lease 1 of task 'train' \(2 rows of step 0, taken by 'slow'\) expired"):
        ledger.ack(taken.lease_id)

    assert ledger.take(want()) is not None


def test_extend_moves_the_deadline_and_never_nearer() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(lease_s=10.0))
    assert taken
    assert taken.lease_id
    assert ledger.extend(taken.lease_id, 20.0) == clock.now + 20
    assert ledger.extend(taken.lease_id, 1.0) == clock.now + 20
    clock.now += 15
    assert ledger.expire() == 0
    clock.now += 6

    assert ledger.expire() == 1


def test_a_producer_whose_lease_expired_cannot_write() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want("rollout", lease_s=1.0))
    assert taken
    clock.now += 2
    ledger.expire()
    with pytest.raises(LeaseError, match="expired"):
        ledger.put_fields(taken.indexes, ["y"], taken.lease_id)


def test_what_was_written_under_a_lost_lease_is_written_again_by_the_next_holder() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    first = ledger.take(want("rollout", lease_s=1.0))
    assert first
    ledger.put_fields(first.indexes, ["y"], first.lease_id)
    clock.now += 2
    ledger.expire()
    assert ledger.take(want("train", fields=("y",))) is None
    assert [(freed.field, freed.rows) for freed in ledger.effects] == [("y", (0, 1))]
    second = ledger.take(want("rollout", lease_s=1.0))
    assert second
    assert second.lease_id
    ledger.put_fields(second.indexes, ["y"], second.lease_id)
    ledger.ack(second.lease_id)

    assert ledger.take(want("train", fields=("y",))) is not None


def test_a_row_whose_new_field_was_taken_already_is_not_produced_twice() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    first = ledger.take(want("rollout", lease_s=1.0))
    assert first
    ledger.put_fields(first.indexes[:1], ["y"], first.lease_id)
    assert ledger.take(want("train", 1, fields=("y",))) is not None
    clock.now += 2
    ledger.expire()
    counts = count(ledger, ledger.steps.alive[0], "rollout")

    assert (counts.consumed, counts.ready) == (1, 1)


def test_rows_put_by_index_must_exist_and_be_named_once() -> None:
    ledger, _ = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    with pytest.raises(FieldError, match="never put"):
        ledger.put_fields([5], ["y"])
    with pytest.raises(FieldError, match="never put"):
        ledger.put_fields([-1], ["y"])
    with pytest.raises(FieldError, match="twice"):
        ledger.put_fields([1, 1], ["y"])


def test_without_a_step_rows_fill_partitions_and_are_drawn_oldest_first() -> None:
    ledger, _ = ledger_of(prompts=2, partitions=2, samples=1)
    first = ledger.put_rows(3, ["x"], None)
    second = ledger.put_rows(1, ["x"], None)
    assert first
    assert second
    taken = ledger.take(want(batch=4))

    assert taken is not None
    assert taken.indexes == first + second
    assert ledger.put_rows(1, ["x"], None) is None
    assert sorted(ledger.steps.alive) == [0, 1]


def test_only_num_global_batch_partitions_are_alive() -> None:
    ledger, _ = ledger_of(partitions=2)
    assert ledger.put_rows(2, ["x"], 0)
    assert ledger.put_rows(2, ["x"], 1)
    assert ledger.put_rows(2, ["x"], 2) is None
    assert ledger.clear(0)

    assert ledger.put_rows(2, ["x"], 2)


def test_a_full_step_is_an_error_at_once() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(4, ["x"], 0)
    with pytest.raises(GroupError, match="step 0 has room for 0 more groups"):
        ledger.put_rows(2, ["x"], 0)
    with pytest.raises(GroupError, match="hold 4 together"):
        ledger.put_rows(20, ["x"], None)


def test_clear_frees_and_ends_the_step_and_is_idempotent() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(2, ["x"], 0)
    assert indexes
    assert ledger.clear(0)
    assert not ledger.clear(0)
    assert [freed.serial for freed in ledger.effects] == [0]
    with pytest.raises(StepClearedError, match="step 0 was cleared"):
        ledger.take(want(step=0))
    with pytest.raises(StepClearedError):
        ledger.put_fields(indexes, ["y"])


def test_a_cleared_step_can_begin_again_with_new_rows() -> None:
    ledger, _ = ledger_of()
    old = ledger.put_rows(2, ["x"], 0)
    ledger.clear(0)
    new = ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(step=0))

    assert old
    assert new
    assert taken
    assert taken.indexes == new
    assert set(old).isdisjoint(new)


def test_clear_is_refused_while_leases_live_unless_forced() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(lease_s=60.0, client="busy"))
    assert taken
    assert taken.lease_id
    clock.now += 12
    with pytest.raises(LeaseError, match=r"lease 1 .*'busy'\) has been alive for 12 s"):
        ledger.clear(0)
    assert ledger.clear(0, force=True)
    with pytest.raises(LeaseError, match="forced clear of step 0"):
        ledger.ack(taken.lease_id)


def test_a_forced_clear_gives_back_the_rows_that_the_lease_has_elsewhere() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["x"], 0)
    other = ledger.put_rows(2, ["x"], 1)
    ledger.take(want(batch=4, lease_s=60.0))
    ledger.clear(0, force=True)
    taken = ledger.take(want(batch=2))

    assert taken
    assert taken.indexes == other


def test_a_partition_clears_itself_when_all_its_tasks_are_through() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("a", "b"))
    ledger.put_rows(2, ["x"], 0)
    for task in ("a", "b"):
        taken = ledger.take(want(task, 2, lease_s=5.0))
        assert taken
        assert taken.lease_id
        assert 0 in ledger.steps.alive
        ledger.ack(taken.lease_id)

    assert not ledger.steps.alive


def test_a_half_full_partition_does_not_clear_itself() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("a",))
    ledger.put_rows(1, ["x"], 0)
    taken = ledger.take(want("a", 1, lease_s=5.0))
    assert taken
    assert taken.lease_id
    ledger.ack(taken.lease_id)

    assert 0 in ledger.steps.alive


def test_rows_that_one_task_has_read_stay_for_another_that_took_them_too() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("a", "b"))
    ledger.put_rows(2, ["x"], 0)
    for task in ("a", "b"):
        assert ledger.take(want(task, 2))
    ledger.read("b", [0, 1])
    ledger.read("c", [0, 1])
    assert not ledger.effects
    ledger.read("a", [0, 0])
    assert [freed.rows for freed in ledger.effects] == [(0,)]
    ledger.read("a", [1])

    assert not ledger.steps.alive


def test_rows_consumed_without_a_lease_stay_until_they_are_read() -> None:
    ledger, clock = ledger_of(prompts=2, samples=1, tasks=("a",))
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want("a", 2))
    assert taken
    assert 0 in ledger.steps.alive
    ledger.read("a", taken.indexes)
    assert not ledger.steps.alive
    ledger.put_rows(2, ["x"], 1)
    ledger.take(want("a", 2))
    clock.now += 1000
    ledger.expire()

    assert not ledger.steps.alive


def test_a_partition_is_kept_while_a_task_outside_the_list_holds_a_lease() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("a",))
    ledger.put_rows(2, ["x"], 0)
    watching = ledger.take(want("watch", 2, lease_s=5.0))
    taken = ledger.take(want("a", 2, lease_s=5.0))
    assert watching
    assert watching.lease_id
    assert taken
    assert taken.lease_id
    ledger.ack(taken.lease_id)
    assert 0 in ledger.steps.alive
    ledger.release(watching.lease_id)

    assert not ledger.steps.alive


def test_a_wait_that_can_never_be_served_is_an_error_at_once() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    with pytest.raises(ExhaustedError, match=r"5 rows of step 7.*at most 4"):
        ledger.take(want(batch=5, step=7))
    with pytest.raises(ExhaustedError, match="at most 8"):
        ledger.take(want(batch=9))
    ledger.put_rows(4, ["x"], 7)
    ledger.take(want(batch=1, step=7))
    assert ledger.take(want(batch=3, step=7, fields=("later",))) is None
    with pytest.raises(ExhaustedError, match="it consumed 1"):
        ledger.take(want(batch=4, step=7))
    with pytest.raises(ExhaustedError, match="at most 2"):
        ledger.take(want(batch=4, step=7, whole_groups=True))


def test_leased_rows_may_come_back_so_a_wait_for_them_goes_on() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want(batch=4, step=0, lease_s=5.0))

    assert ledger.take(want(batch=4, step=0)) is None


def test_dropped_rows_are_dropped_for_later_tasks_too_but_not_for_those_that_have_them() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want("early", 1))
    taken = ledger.take(want("judge", 2, lease_s=5.0))
    assert taken
    assert taken.lease_id
    ledger.drop(taken.lease_id, "stale")
    partition = ledger.steps.alive[0]
    ledger.take(want("late", 1))
    seen = {task: count(ledger, partition, task) for task in ("early", "judge", "late")}

    assert {task: (each.consumed, each.dropped) for task, each in seen.items()} == {
        "early": (1, 1),
        "judge": (0, 2),
        "late": (1, 2),
    }
    with pytest.raises(LeaseError, match=r"dropped \(stale\)"):
        ledger.ack(taken.lease_id)


def test_undo_is_as_if_the_consumer_had_never_been_served() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2, tasks=("train",))
    ledger.put_rows(4, ["x"], 0)
    for request in (want(batch=4, step=0, whole_groups=True), want(batch=4, step=0, lease_s=5.0)):
        taken = ledger.take(request)
        assert taken
        ledger.undo(request, taken)

    again = ledger.take(want(batch=4, step=0, whole_groups=True))
    assert again is not None
    assert ledger.rows_consumed["train"] == 4


def test_only_puts_and_clears_can_make_room_for_a_put_that_waits() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    versions = [ledger.room_version]
    for act in (
        lambda: ledger.put_rows(4, ["x"], 0),
        lambda: ledger.take(want(step=0)),
        lambda: ledger.put_rows(4, ["x"], 1),
        lambda: ledger.clear(0),
    ):
        act()
        versions.append(ledger.room_version)

    assert versions == [0, 1, 1, 2, 3]


def test_a_global_index_names_its_partition_in_the_queues_life_and_its_row_there() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["x"], 4)
    second = ledger.put_rows(2, ["x"], 9)

    assert second == [first_index(1), first_index(1) + 1]
    assert [split_index(index) for index in second] == [(1, 0), (1, 1)]


def test_a_put_that_spreads_over_steps_names_its_rows_in_their_order() -> None:
    ledger, _ = ledger_of(prompts=1, partitions=2, samples=2)
    ledger.put_rows(1, ["x"], None, ["a"])
    indexes = ledger.put_rows(3, ["x"], None, ["b", "a", "b"])

    assert indexes == [first_index(1), 1, first_index(1) + 1]


def test_rows_put_one_by_one_cost_bytes_not_objects() -> None:
    ledger, _ = ledger_of(prompts=20_000, partitions=1, samples=1)
    ledger.take(want())
    tracemalloc.start()
    try:
        for _ in range(10):
            ledger.put_rows(1, ["x"], 0)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(19_990):
            ledger.put_rows(1, ["x"], 0)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert grown < 19_990


@pytest.mark.parametrize("how", ["cleared", "consumed"])
def test_the_memory_of_a_step_goes_with_it(how: str) -> None:
    """A controller collects garbage rarely: what only a collection finds would pile up, a million rows at a time."""
    ledger, _ = ledger_of(tasks=("a", "b"))
    ledger.put_rows(8, ["x"], 0)
    partition = weakref.ref(ledger.steps.alive[0])
    gc.collect()
    gc.disable()
    try:
        for task, place in (("a", None), ("b", rank(0, 1))):
            taken = ledger.take(want(task, 8, lease_s=5.0, dp=place))
            assert taken
            assert taken.lease_id
            ledger.ack(taken.lease_id, 0)
        if how == "cleared":
            ledger.put_rows(8, ["x"], 0)
            partition = weakref.ref(ledger.steps.alive[0])
            ledger.take(want("a", 2, lease_s=5.0, whole_groups=True))
            ledger.clear(0, force=True)
        assert not ledger.steps.alive
        ledger.effects.clear()
        assert partition() is None
    finally:
        gc.enable()
