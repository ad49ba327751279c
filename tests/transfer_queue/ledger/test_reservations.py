import pytest

from tests.transfer_queue.ledger.clock import ledger_of, rank, want
from transfer_queue.errors import DPGroupError, LeaseError
from transfer_queue.ledger.counts import count, recount
from transfer_queue.ledger.request import dp_place


def test_ranks_get_disjoint_slices_in_order() -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    indexes = ledger.put_rows(8, ["x"], 0)
    taken = [ledger.take(want(batch=4, step=0, dp=rank(r))) for r in (1, 0)]

    assert indexes == [index for each in (taken[1], taken[0]) if each for index in each.indexes]


def test_interleaved_groups_get_different_rows() -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    ledger.put_rows(8, ["x"], 0)
    order = [(0, "g"), (0, "h"), (1, "h"), (1, "g")]
    taken = [ledger.take(want(batch=2, step=0, dp=rank(r, 2, group))) for r, group in order]
    rows = [index for each in taken if each for index in each.indexes]

    assert sorted(rows) == list(range(8))


def test_slices_are_whole_groups() -> None:
    ledger, _ = ledger_of(prompts=4, samples=2)
    ledger.put_rows(8, ["x"], 0)
    for r in range(2):
        taken = ledger.take(want(batch=4, step=0, dp=rank(r), whole_groups=True))
        assert taken
        groups = ledger.steps.places(taken.indexes)[1]

        assert groups == [2 * r, 2 * r, 2 * r + 1, 2 * r + 1]


def test_rows_wait_until_there_are_enough_for_all_ranks() -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    ledger.put_rows(3, ["x"], 0)
    request = want(batch=2, step=0, dp=rank(0))
    assert ledger.take(request) is None
    ledger.put_rows(1, ["x"], 0)

    assert ledger.take(request) is not None


def test_the_same_rank_gets_the_same_rows_until_all_have_voted() -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    ledger.put_rows(8, ["x"], 0)
    first = [ledger.take(want(step=0, dp=rank(0))) for _ in range(3)]
    assert first[0] == first[1] == first[2]
    assert count(ledger, ledger.steps.alive[0], "train").consumed == 0
    ledger.take(want(step=0, dp=rank(1)))
    assert count(ledger, ledger.steps.alive[0], "train").consumed == 4
    with pytest.raises(DPGroupError, match="use a new dp_group_id"):
        ledger.take(want(step=0, dp=rank(0)))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"batch": 3}, "batch_size=3.*batch_size=2"),
        ({"dp": rank(1, 4)}, "dp_size=4.*dp_size=2"),
        ({"fields": ("x", "y")}, r"data_fields=\['x', 'y'\].*data_fields=\['x'\]"),
        ({"lease_s": 5.0}, "a lease=True.*a lease=False"),
    ],
)
def test_ranks_that_disagree_are_told_both_values(other: dict[str, object], named: str) -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    ledger.put_rows(8, ["x", "y"], 0)
    ledger.take(want(step=0, dp=rank(0)))
    with pytest.raises(DPGroupError, match=named):
        ledger.take(want(**{"step": 0, "dp": rank(1), **other}))  # type: ignore[arg-type]


def test_acks_are_votes_that_are_committed_together() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    taken = [ledger.take(want(step=0, dp=rank(r), lease_s=5.0)) for r in range(2)]
    lease = taken[0].lease_id if taken[0] else None
    assert lease is not None
    partition = ledger.steps.alive[0]
    ledger.ack(lease, 0)
    ledger.ack(lease, 0)
    assert count(ledger, partition, "train").leased == 4
    with pytest.raises(DPGroupError, match="has no vote"):
        ledger.ack(lease, 2)
    ledger.ack(lease, 1)
    assert count(ledger, partition, "train").consumed == 4
    ledger.ack(lease, 1)  # a tensor-parallel peer of rank 1


def test_expiry_gives_everything_back_and_fences_the_votes() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    taken = ledger.take(want(step=0, dp=rank(0), lease_s=5.0))
    assert taken
    assert taken.lease_id
    ledger.ack(taken.lease_id, 0)
    clock.now += 6
    ledger.expire()
    with pytest.raises(LeaseError, match="expired"):
        ledger.ack(taken.lease_id, 1)
    again = ledger.take(want(step=0, dp=rank(1), lease_s=5.0))
    assert again
    assert again.indexes == [2, 3]
    assert again.lease_id != taken.lease_id


def test_without_leases_the_callers_deadline_gives_everything_back() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want(step=0, dp=rank(0), patience_s=3.0))
    clock.now += 4
    ledger.expire()

    assert count(ledger, ledger.steps.alive[0], "train").ready == 4


def test_each_rank_that_arrives_prolongs_the_common_lease() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want(step=0, dp=rank(0), lease_s=5.0))
    clock.now += 4
    second = ledger.take(want(step=0, dp=rank(1), lease_s=5.0))
    clock.now += 4

    assert ledger.expire() == 0
    assert second
    assert second.lease_deadline == 109.0


def test_clear_lets_a_group_id_begin_again() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    for _ in range(2):
        indexes = ledger.put_rows(4, ["x"], 0)
        taken = [ledger.take(want(step=0, dp=rank(r))) for r in range(2)]
        assert indexes == [index for each in taken if each for index in each.indexes]
        assert [ledger.reservations.completed("train", 0, r) for r in range(2)] == [1, 1]
        ledger.clear(0)
        assert ledger.reservations.completed("train", 0, 0) == 0


def test_release_by_one_rank_gives_back_the_rows_of_all() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    taken = ledger.take(want(step=0, dp=rank(0), lease_s=5.0))
    assert taken
    assert taken.lease_id
    ledger.release(taken.lease_id)

    assert count(ledger, ledger.steps.alive[0], "train").ready == 4


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"dp_rank": 0, "dp_size": 2}, "no dp_group_id"),
        ({"dp_group_id": "g"}, "no dp_rank, dp_size"),
        ({"dp_rank": 2, "dp_size": 2, "dp_group_id": "g"}, "dp_rank=2 is out of range: dp_size=2 allows 0 to 1"),
        ({"dp_rank": -1, "dp_size": 2, "dp_group_id": "g"}, "out of range"),
        ({"dp_rank": 0, "dp_size": 0, "dp_group_id": "g"}, "dp_size must be at least 1, not 0"),
        ({"dp_rank": "0", "dp_size": 2, "dp_group_id": "g"}, "whole number, not '0'"),
        ({"dp_rank": True, "dp_size": 2, "dp_group_id": "g"}, "whole number, not True"),
        ({"dp_rank": 0, "dp_size": 2, "dp_group_id": [1]}, "dp_group_id must be"),
    ],
)
def test_dp_parameters_are_checked(params: dict[str, object], named: str) -> None:
    with pytest.raises(DPGroupError, match=named):
        dp_place(params)


@pytest.mark.parametrize("tasks", [(), ("train",)])
def test_undo_takes_back_a_vote_and_what_it_completed(tasks: tuple[str, ...]) -> None:
    ledger, _ = ledger_of(prompts=4, samples=1, tasks=tasks)
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want(step=0, dp=rank(0)))
    peer = ledger.take(want(step=0, dp=rank(0)))
    assert peer
    ledger.undo(want(step=0, dp=rank(0)), peer)  # its peer has heard, so the rank's vote stands
    last = ledger.take(want(step=0, dp=rank(1)))
    assert last
    assert count(ledger, ledger.steps.alive[0], "train").consumed == 4
    ledger.undo(want(step=0, dp=rank(1)), last)
    assert count(ledger, ledger.steps.alive[0], "train").leased == 4
    assert count(ledger, ledger.steps.alive[0], "train") == recount(ledger, ledger.steps.alive[0], "train")
    again = ledger.take(want(step=0, dp=rank(1)))

    assert again is not None
    assert again.indexes == last.indexes
    assert ledger.rows_consumed["train"] == count(ledger, ledger.steps.alive[0], "train").consumed == 4


def test_a_rank_that_runs_ahead_counts_its_own_votes() -> None:
    ledger, _ = ledger_of(prompts=8, samples=1)
    ledger.put_rows(8, ["x"], 0)
    seen = []
    for r in (0, 0, 1, 1):
        done = ledger.reservations.completed("train", 0, r)
        taken = ledger.take(want(batch=2, step=0, dp=rank(r, 2, f"number {done}")))
        assert taken
        seen += taken.indexes

    assert sorted(seen) == list(range(8))


def test_a_vote_that_went_back_with_its_rows_counts_no_more() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    first = ledger.take(want(step=0, dp=rank(0), lease_s=10))
    assert first
    assert first.lease_id is not None
    ledger.ack(first.lease_id, 0)
    assert ledger.reservations.completed("train", 0, 0) == 1
    clock.now += 11
    ledger.expire()

    assert ledger.reservations.completed("train", 0, 0) == 0
