import pytest

from tests.transfer_queue.ledger.clock import ledger_of, want
from transfer_queue.errors import ExhaustedError, FieldLostError
from transfer_queue.ledger import Freed, Ledger
from transfer_queue.ledger.counts import count, recount
from transfer_queue.ledger.explain import explain


def produced(ledger: Ledger, task: str = "rollout", reads: str = "prompt", puts: tuple[str, ...] = ("x",)) -> list[int]:
    """The rows that this task took whole, put fields into and acknowledged."""
    taken = ledger.take(want(task, 2, fields=(reads,), lease_s=10.0, step=0))
    assert taken
    ledger.put_fields(taken.indexes, list(puts), taken.lease_id)
    ledger.ack(taken.lease_id or 0)
    return taken.indexes


def test_the_producing_task_gets_the_rows_again_and_puts_the_field_anew() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    rows = produced(ledger)
    ledger.lose(rows[:1], ["x"])
    partition = ledger.steps.alive[0]
    assert (count(ledger, partition, "rollout").ready, ledger.rows_consumed["rollout"]) == (1, 1)
    request = want(batch=2, step=0)
    assert ledger.take(request) is None
    explanation = explain(ledger, request)
    assert [(each.code, each.rows) for each in explanation.reasons if each.rows] == [("lost", 1)]
    assert str(explanation).endswith("1 ready; 1 lost: field 'x' was lost with its storage")
    again = ledger.take(want("rollout", 1, fields=("prompt",), lease_s=10.0))
    assert again
    assert again.indexes == rows[:1]
    ledger.put_fields(again.indexes, ["x"], again.lease_id)

    assert ledger.take(request) is not None


def test_leases_that_read_the_field_end_and_say_so() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    rows = produced(ledger)
    reader = ledger.take(want("train", 2, lease_s=10.0))
    other = ledger.take(want("watch", 2, fields=("prompt",), lease_s=10.0))
    assert reader
    assert other
    ledger.lose(rows[:1], ["x"])
    with pytest.raises(FieldLostError, match=r"lease 2 of task 'train' .* field 'x' of its rows was lost"):
        ledger.ack(reader.lease_id or 0)
    ledger.ack(other.lease_id or 0)

    assert count(ledger, ledger.steps.alive[0], "train").not_ready == 1


def test_whoever_consumed_the_rows_stays_through_with_them() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    rows = produced(ledger)
    assert ledger.take(want("train", 2))
    ledger.lose(rows, ["x"])

    assert count(ledger, ledger.steps.alive[0], "train").consumed == 2
    assert count(ledger, ledger.steps.alive[0], "rollout").ready == 2


def test_what_was_made_together_with_the_field_or_from_it_is_made_anew() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    rows = produced(ledger, puts=("x", "logprobs"))
    produced(ledger, "reward", "x", ("reward",))
    ledger.effects.clear()
    ledger.lose(rows[:1], ["x"])
    partition = ledger.steps.alive[0]
    assert sorted((freed.field, freed.rows) for freed in ledger.effects) == [("logprobs", (0,)), ("reward", (0,))]
    assert not partition.has("reward")[0]
    assert partition.has("reward")[1]
    again = ledger.take(want("rollout", 1, fields=("prompt",), lease_s=10.0))
    assert again
    ledger.put_fields(again.indexes, ["x", "logprobs"], again.lease_id)

    assert count(ledger, partition, "reward").ready == 1


def test_the_producers_own_lease_ends_too_as_its_work_is_lost() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    taken = ledger.take(want("rollout", 2, fields=("prompt",), lease_s=10.0))
    assert taken
    ledger.put_fields(taken.indexes, ["x"], taken.lease_id)
    ledger.lose(taken.indexes[1:], ["x"])
    with pytest.raises(FieldLostError):
        ledger.ack(taken.lease_id or 0)

    assert count(ledger, ledger.steps.alive[0], "rollout").ready == 2


def test_a_step_whose_last_row_is_made_anew_is_not_cleared() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1, tasks=("rollout",))
    ledger.put_rows(2, ["prompt"], 0)
    taken = ledger.take(want("rollout", 2, fields=("prompt",), lease_s=10.0))
    assert taken
    ledger.put_fields(taken.indexes, ["x"], taken.lease_id)
    produced(ledger, "reward", "x", ("reward",))
    ledger.lose(taken.indexes, ["x"])

    assert Freed(0) not in ledger.effects
    again = ledger.take(want("rollout", 2, fields=("prompt",), lease_s=10.0))
    assert again
    assert again.indexes == taken.indexes


def test_steps_of_one_lease_are_made_anew_together() -> None:
    ledger, _ = ledger_of(prompts=1, samples=1, tasks=("rollout",))
    rows = [row for step in (0, 1) for row in ledger.put_rows(1, ["prompt"], step) or []]
    taken = ledger.take(want("rollout", 2, fields=("prompt",), lease_s=10.0))
    assert taken
    ledger.put_fields(rows, ["x"], taken.lease_id)
    reads = ledger.take(want("reward", 2, fields=("x",), lease_s=10.0))
    assert reads
    ledger.ack(reads.lease_id or 0)
    ledger.lose(rows, ["x"])

    assert sorted(ledger.steps.alive) == [0, 1]
    assert count(ledger, ledger.steps.alive[1], "rollout").ready == 1


def test_a_row_that_lost_what_it_was_put_with_is_dropped_for_every_task() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    indexes = ledger.put_rows(2, ["x"], 0)
    assert indexes
    assert ledger.take(want("early", 2))
    held = ledger.take(want("holder", 2, lease_s=10.0))
    assert held
    ledger.lose(indexes[:1], ["x"])
    partition = ledger.steps.alive[0]
    seen = {task: count(ledger, partition, task) for task in ("early", "holder", "late")}
    assert {task: (each.consumed, each.dropped) for task, each in seen.items()} == {
        "early": (2, 0),
        "holder": (0, 1),
        "late": (0, 1),
    }
    assert partition.task("late").dropped == {"lost": 1}
    assert seen["late"] == recount(ledger, partition, "late")
    with pytest.raises(ExhaustedError, match="1 were dropped"):
        ledger.take(want("late", 2, step=0))


def test_rows_that_are_gone_are_passed_over() -> None:
    ledger, _ = ledger_of(prompts=1, samples=1, tasks=("a",))
    gone = ledger.put_rows(1, ["x"], 0)
    kept = ledger.put_rows(1, ["x"], 1)
    assert gone
    assert kept
    ledger.clear(0)
    ledger.lose(gone, ["x"])
    ledger.effects.clear()
    ledger.lose(gone + kept, ["x"])

    assert ledger.effects == [Freed(1)]


def test_a_lost_field_is_told_from_one_that_was_never_put_until_it_is_put_again() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    ledger.put_rows(2, ["prompt"], 0)
    rows = produced(ledger)
    ledger.lose(rows[:1], ["x"])
    ledger.check_not_lost(rows[1:], "x")
    ledger.check_not_lost(rows, "y")
    with pytest.raises(FieldLostError, match="field 'x' of 1 of these rows of step 0"):
        ledger.check_not_lost(rows, "x")
    taken = ledger.take(want("rollout", 1, fields=("prompt",), lease_s=10.0, step=0))
    assert taken
    ledger.put_fields(taken.indexes, ["x"], taken.lease_id)

    ledger.check_not_lost(rows, "x")
