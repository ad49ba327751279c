"""A producer, or a voter, whose lease is over changes nothing any more, however the lease ended."""

from collections.abc import Callable

import pytest

from tests.transfer_queue.ledger.clock import Clock, ledger_of, rank, want
from transfer_queue.errors import FieldLostError, LeaseError
from transfer_queue.ledger import Ledger, Taken
from transfer_queue.ledger.counts import count

End = Callable[[Ledger, Clock, Taken], object]


def expire(ledger: Ledger, clock: Clock, _: Taken) -> None:
    clock.now += 11
    ledger.expire()


ENDS: dict[str, tuple[End, type[Exception], str]] = {
    "expired": (expire, LeaseError, "expired"),
    "released": (lambda ledger, _, taken: ledger.release(taken.lease_id or 0), LeaseError, "was released"),
    "dropped": (lambda ledger, _, taken: ledger.drop(taken.lease_id or 0, "old"), LeaseError, r"dropped \(old\)"),
    "cleared": (lambda ledger, _, taken: ledger.clear(0, force=True), LeaseError, "forced clear of step 0"),
    "lost": (lambda ledger, _, taken: ledger.lose(taken.indexes, ["x"]), FieldLostError, "field 'x' of its rows was"),
    "rolled back": (
        lambda ledger, _, taken: (ledger.ack(taken.lease_id or 0, version=5), ledger.rollback(4)),
        LeaseError,
        "was acknowledged",
    ),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("act", ["put", "ack", "extend", "release", "drop"])
def test_who_comes_after_the_end_of_a_lease_is_told_and_changes_nothing(how: str, act: str) -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    taken = ledger.take(want("rollout", lease_s=10.0))
    assert taken
    lease = taken.lease_id or 0
    end, error, named = ENDS[how]
    end(ledger, clock, taken)
    before = ledger.export()
    acts: dict[str, Callable[[], object]] = {
        "put": lambda: ledger.put_fields(taken.indexes, ["y"], lease),
        "ack": lambda: ledger.ack(lease),
        "extend": lambda: ledger.extend(lease, 60),
        "release": lambda: ledger.release(lease),
        "drop": lambda: ledger.drop(lease, "late"),
    }
    with pytest.raises(error, match=f"lease 1 of task 'rollout'.*{named}"):
        acts[act]()

    assert ledger.export() == before


def test_under_a_lease_only_its_own_rows_are_written() -> None:
    ledger, _ = ledger_of(prompts=4, samples=1)
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    mine = ledger.take(want("rollout", lease_s=10.0))
    assert mine
    for strange in (indexes[1:3], indexes[3:]):
        with pytest.raises(LeaseError, match=r"rows \[.*\] are not in lease 1 of task 'rollout'"):
            ledger.put_fields(strange, ["y"], mine.lease_id)

    assert ledger.take(want(batch=1, fields=("y",))) is None


def test_what_a_late_producer_wrote_before_is_written_by_the_next_holder_only() -> None:
    ledger, clock = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["x"], 0)
    late = ledger.take(want("rollout", lease_s=10.0))
    assert late
    ledger.put_fields(late.indexes[:1], ["y"], late.lease_id)
    expire(ledger, clock, late)
    now = ledger.take(want("rollout", lease_s=10.0))
    assert now
    with pytest.raises(LeaseError):
        ledger.put_fields(late.indexes[1:], ["y"], late.lease_id)
    ledger.put_fields(now.indexes, ["y"], now.lease_id)
    ledger.ack(now.lease_id or 0)

    assert count(ledger, ledger.steps.alive[0], "rollout").consumed == 2


def test_a_vote_cast_before_an_expiry_does_not_count_in_the_next_life_of_its_group() -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    ledger.put_rows(4, ["x"], 0)
    first = ledger.take(want(step=0, dp=rank(0), lease_s=10.0))
    assert first
    ledger.ack(first.lease_id or 0, 0)
    expire(ledger, clock, first)
    again = [ledger.take(want(step=0, dp=rank(r), lease_s=10.0)) for r in (0, 1)]
    lease = again[1].lease_id if again[1] else None
    assert lease
    ledger.ack(lease, 1)
    assert count(ledger, ledger.steps.alive[0], "train").leased == 4
    with pytest.raises(LeaseError, match="expired"):
        ledger.ack(first.lease_id or 0, 0)
    ledger.ack(lease, 0)

    assert count(ledger, ledger.steps.alive[0], "train").consumed == 4


@pytest.mark.parametrize("how", ["released", "lost"])
def test_votes_go_with_the_rows_of_their_group(how: str) -> None:
    ledger, clock = ledger_of(prompts=4, samples=1)
    indexes = ledger.put_rows(4, ["p"], 0)
    assert indexes
    ledger.put_fields(indexes, ["x"])
    taken = ledger.take(want(step=0, dp=rank(0), lease_s=10.0))
    assert taken
    ledger.ack(taken.lease_id or 0, 0)
    ENDS[how][0](ledger, clock, taken)

    assert ledger.reservations.completed("train", 0, 0) == 0
    with pytest.raises(ENDS[how][1]):
        ledger.ack(taken.lease_id or 0, 1)
