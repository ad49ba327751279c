from tests.transfer_queue.ledger.clock import ledger_of, want
from transfer_queue.ledger.peek import peek


def test_each_row_says_what_it_has_and_where_each_task_stands() -> None:
    ledger, _ = ledger_of(prompts=4, samples=2, tasks=("a", "b"))
    indexes = ledger.put_rows(8, ["x"], 0)
    assert indexes
    ledger.put_fields(indexes[:6], ["y"])
    ledger.take(want("a", 1, fields=("x", "y")))
    ledger.take(want("a", 1, fields=("x", "y"), lease_s=9.0, client="w"))
    taken = ledger.take(want("a", 1, fields=("x", "y"), lease_s=9.0))
    assert taken
    assert taken.lease_id is not None
    ledger.drop(taken.lease_id, "odd")
    ledger.last_wants["a"] = want("a", 2, fields=("x", "y"), whole_groups=True)
    rows = peek(ledger, 0, 8)

    assert [row.index for row in rows] == indexes
    assert (rows[0].fields, rows[7].fields) == (("x", "y"), ("x",))
    states = [row.tasks["a"] for row in rows]
    assert states == ["consumed", "leased by 'w'", "dropped (odd)", "free", "ready", "ready", "free", "free"]
    assert {row.tasks["b"] for row in rows} == {"free", "dropped (odd)"}
    assert rows[2].group == rows[3].group != rows[4].group


def test_only_so_many_rows_from_the_oldest_step_on_and_nothing_changes() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    second, first = ledger.put_rows(2, ["x"], 8), ledger.put_rows(2, ["x"], 7)
    assert first
    assert second

    assert [row.index for row in peek(ledger, None, 3)] == [*first, second[0]]
    assert [row.step for row in peek(ledger, 8, 3)] == [8, 8]
    assert peek(ledger, 9, 3) == []
    assert ledger.take(want(batch=4)) is not None
