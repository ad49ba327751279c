"""A ledger goes through bytes and goes on as if nothing had been."""

import msgspec
import pytest

from tests.transfer_queue.ledger.clock import Clock, ledger_of, rank, want
from transfer_queue.errors import ConfigurationError, DPGroupError, GroupError, LeaseError, StepClearedError
from transfer_queue.ledger import Ledger, LedgerState


def restarted(ledger: Ledger, clock: Clock) -> tuple[Ledger, Clock]:
    """The ledger after a restart, in a process whose clock says something else."""
    encoded = msgspec.msgpack.encode(ledger.export())
    later = Clock()
    later.now = clock.now - 50
    return Ledger.restore(msgspec.msgpack.decode(encoded, type=LedgerState), later), later


def test_a_lease_has_the_time_left_that_it_had() -> None:
    ledger, clock = ledger_of()
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want(lease_s=10.0, client="slow"))
    assert taken
    clock.now += 4
    ledger, clock = restarted(ledger, clock)
    clock.now += 5
    assert ledger.expire() == 0
    clock.now += 1
    assert ledger.expire() == 1
    ledger, clock = restarted(ledger, clock)
    with pytest.raises(LeaseError, match=r"lease 1 .* taken by 'slow'.* expired"):
        ledger.ack(taken.lease_id or 0)


def test_groups_keep_their_names_and_their_room() -> None:
    ledger, clock = ledger_of(samples=2)
    indexes = ledger.put_rows(2, ["x"], 0)
    ledger.put_rows(1, ["x"], 0, ["p"])
    ledger, clock = restarted(ledger, clock)
    more = ledger.put_rows(1, ["x"], 0, ["p"])
    assert indexes
    assert more
    assert ledger.steps.places([*indexes, *more])[1] == [0, 0, "p"]
    with pytest.raises(GroupError, match="group 'p' has room for 0"):
        ledger.put_rows(1, ["x"], 0, ["p"])


def test_votes_and_complete_reservations_stand() -> None:
    ledger, clock = ledger_of(prompts=8, samples=1)
    ledger.put_rows(8, ["x"], 0)
    for group, ranks in (("done", (0, 1)), ("open", (0,))):
        for r in ranks:
            ledger.take(want(step=0, dp=rank(r, 2, group)))
    ledger, clock = restarted(ledger, clock)
    assert [ledger.reservations.completed("train", 0, r) for r in (0, 1)] == [2, 1]
    with pytest.raises(DPGroupError, match="complete"):
        ledger.take(want(step=0, dp=rank(0, 2, "done")))
    last = ledger.take(want(step=0, dp=rank(1, 2, "open")))

    assert last
    assert last.indexes == [6, 7]
    assert ledger.rows_consumed["train"] == 8


def test_unread_rows_and_cleared_steps_are_remembered() -> None:
    ledger, clock = ledger_of(prompts=2, samples=1, tasks=("a",))
    ledger.put_rows(2, ["x"], 7)
    ledger.clear(7)
    ledger.put_rows(2, ["x"], 0)
    taken = ledger.take(want("a", 2))
    assert taken
    ledger, clock = restarted(ledger, clock)
    assert 0 in ledger.steps.alive
    ledger.read("a", taken.indexes)
    assert not ledger.steps.alive
    with pytest.raises(StepClearedError):
        ledger.take(want("a", step=7))


def test_a_state_of_another_format_is_refused() -> None:
    ledger, clock = ledger_of()
    state = msgspec.structs.replace(ledger.export(), format=99)
    with pytest.raises(ConfigurationError, match="format 99"):
        Ledger.restore(state, clock)
