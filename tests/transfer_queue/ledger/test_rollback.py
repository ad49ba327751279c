import pytest

from tests.transfer_queue.ledger.clock import ledger_of, rank, want
from transfer_queue.errors import ConfigurationError
from transfer_queue.ledger import Ledger, Rolled
from transfer_queue.ledger.counts import count, recount


def consume(ledger: Ledger, version: int | None) -> list[int]:
    taken = ledger.take(want("train", 1, lease_s=10.0))
    assert taken
    ledger.ack(taken.lease_id or 0, version=version)
    return taken.indexes


def test_only_acks_of_later_versions_are_undone() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    for version in (3, None, 4, 5):
        consume(ledger, version)
    rolled = ledger.rollback(3)
    assert rolled == Rolled({"train": [2, 3]}, [], [])
    assert ledger.rollback(3) == Rolled({}, [], [])
    partition = ledger.steps.alive[0]
    assert count(ledger, partition, "train") == recount(ledger, partition, "train")
    again = ledger.take(want(batch=2, step=0))

    assert again
    assert again.indexes == [2, 3]
    assert ledger.rows_consumed["train"] == 4


def test_steps_that_were_cleared_after_such_an_ack_are_named_even_if_they_began_again() -> None:
    ledger, _ = ledger_of(prompts=1, samples=1, tasks=("train",))
    for step, version in ((0, 2), (1, 7), (2, 9)):
        ledger.put_rows(1, ["x"], step)
        consume(ledger, version)
    assert not ledger.steps.alive
    ledger.put_rows(1, ["x"], 2)

    assert ledger.rollback(2).gone_steps == [1, 2]
    assert ledger.rollback(8).gone_steps == [2]


def test_rows_of_alive_steps_whose_values_are_kept_no_longer_are_named() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("train",))
    indexes = ledger.put_rows(2, ["x"], 0)
    consume(ledger, 5)

    assert ledger.rollback(4) == Rolled({}, [], (indexes or [])[:1])


def test_a_dp_group_that_is_rolled_back_may_begin_again_with_its_own_count() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    taken = [ledger.take(want(step=0, batch=1, dp=rank(r), lease_s=10.0)) for r in (0, 1)]
    lease = taken[0].lease_id if taken[0] else None
    assert lease
    for r, version in ((0, 4), (1, 5)):
        ledger.ack(lease, r, version)
    assert ledger.reservations.completed("train", 0, 0) == 1
    assert ledger.rollback(4).rows == {"train": [0, 1]}
    assert ledger.reservations.completed("train", 0, 0) == 0

    assert ledger.take(want(step=0, batch=1, dp=rank(0), lease_s=10.0)) == taken[0].__class__([0], 2, 110.0)


def test_a_single_vote_of_a_later_version_is_withdrawn() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(step=0, batch=1, dp=rank(0), lease_s=10.0))
    assert taken
    ledger.ack(taken.lease_id or 0, 0, 9)
    ledger.rollback(8)
    ledger.ack(taken.lease_id or 0, 1, 8)
    assert count(ledger, ledger.steps.alive[0], "train").leased == 2
    ledger.ack(taken.lease_id or 0, 0, 8)

    assert count(ledger, ledger.steps.alive[0], "train").consumed == 2


@pytest.mark.parametrize("used", [False, True])
def test_a_producer_that_is_rolled_back_puts_its_fields_again_unless_they_are_used(used: bool) -> None:
    ledger, _ = ledger_of(prompts=1, samples=1)
    indexes = ledger.put_rows(1, ["x"], 0)
    assert indexes
    taken = ledger.take(want("rollout", 1, lease_s=10.0))
    assert taken
    ledger.put_fields(indexes, ["y"], taken.lease_id)
    ledger.ack(taken.lease_id or 0, version=6)
    if used:
        assert ledger.take(want("train", 1, fields=("y",)))
    rolled = ledger.rollback(5)

    assert rolled.rows == ({} if used else {"rollout": indexes})
    assert bool(ledger.steps.alive[0].has("y")[0]) is used


def test_versions_out_of_range_are_refused() -> None:
    ledger, _ = ledger_of()
    for version in (-1, 2**31):
        with pytest.raises(ConfigurationError, match=f"version={version} is out of range"):
            ledger.ack(1, version=version)


def test_work_stands_as_long_as_somebody_downstream_has_it() -> None:
    ledger, _ = ledger_of(prompts=1, samples=1)
    indexes = ledger.put_rows(1, ["prompt"], 0)
    assert indexes
    for task, reads, makes in (("rollout", "prompt", "response"), ("reward", "response", "reward")):
        taken = ledger.take(want(task, 1, fields=(reads,), lease_s=10.0))
        assert taken
        ledger.put_fields(indexes, [makes], taken.lease_id)
        ledger.ack(taken.lease_id or 0, version=6)
    assert ledger.take(want("train", 1, fields=("reward",)))

    assert ledger.rollback(5) == Rolled({}, [], [])
    assert count(ledger, ledger.steps.alive[0], "rollout").consumed == 1


@pytest.mark.parametrize("version", [-2, -(2**31), 2**31 - 1, 2**63 - 1])
def test_a_version_that_no_ack_can_bear_is_refused_and_moves_nothing(version: int) -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["x"], 0)
    consume(ledger, 0)
    partition = ledger.steps.alive[0]
    before = count(ledger, partition, "train")
    with pytest.raises(ConfigurationError, match="out of range"):
        ledger.rollback(version)

    assert count(ledger, partition, "train") == before == recount(ledger, partition, "train")
    assert ledger.rollback(-1).rows == {"train": [0]}
