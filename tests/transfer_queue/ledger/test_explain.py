from tests.transfer_queue.ledger.clock import ledger_of, want
from transfer_queue.ledger.explain import CODES, EXAMPLES, NAMED, Reason, explain


def reasons(ledger: object, request: object) -> dict[str, Reason]:
    found = explain(ledger, request).reasons  # type: ignore[arg-type]
    return {reason.code: reason for reason in found}


def test_each_reason_names_its_first_rows() -> None:
    ledger, _ = ledger_of(prompts=4, samples=2)
    indexes = ledger.put_rows(8, ["x"], 0)
    assert indexes
    ledger.put_fields(indexes[:3], ["y"])
    found = reasons(ledger, want(batch=8, fields=("x", "y"), whole_groups=True))

    assert found["field_missing"].indexes == tuple(indexes[3:])
    assert found["field_missing"].which == f"rows {', '.join(map(str, indexes[3:]))}"
    assert (found["group_incomplete"].rows, found["group_incomplete"].indexes) == (1, (indexes[2],))
    assert len(found["group_incomplete"].groups) == 1


def test_groups_are_named_as_they_were_put() -> None:
    ledger, _ = ledger_of(prompts=2, samples=2)
    ledger.put_rows(2, ["x"], 0, ["apple", "pear"])
    found = reasons(ledger, want(batch=4, whole_groups=True))

    assert found["group_incomplete"].groups == ("apple", "pear")
    assert found["group_incomplete"].which.endswith("of groups 'apple', 'pear'")


def test_a_lease_names_its_holder_and_its_rows() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(8, ["x"], 0)
    assert indexes
    ledger.take(want(batch=7, lease_s=9.0, client="w1"))
    lease = reasons(ledger, want(batch=2))["leased"]

    assert (lease.holder, lease.rows, lease.indexes) == ("w1", 7, tuple(indexes[:EXAMPLES]))
    assert lease.which.endswith(", …")


def test_consumed_and_dropped_rows_are_named_under_their_own_reason() -> None:
    ledger, _ = ledger_of()
    indexes = ledger.put_rows(8, ["x"], 0)
    assert indexes
    ledger.take(want(batch=2))
    for reason in ("stale", "odd"):
        taken = ledger.take(want(batch=2, lease_s=9.0))
        assert taken
        assert taken.lease_id is not None
        ledger.drop(taken.lease_id, reason)
    found = {reason.detail: reason.indexes for reason in explain(ledger, want(batch=8)).reasons}

    assert found["consumed by 'train' before"] == tuple(indexes[:2])
    assert found["dropped (stale)"] == tuple(indexes[2:4])
    assert found["dropped (odd)"] == tuple(indexes[4:6])


def test_examples_of_several_steps_are_joined_and_counts_added() -> None:
    ledger, _ = ledger_of(prompts=2, samples=1)
    first, second = ledger.put_rows(2, ["x"], 0), ledger.put_rows(2, ["x"], 1)
    assert first
    assert second
    missing = reasons(ledger, want(batch=4, fields=("y",)))["field_missing"]

    assert (missing.rows, missing.indexes) == (4, (*first, *second))


def test_an_explanation_does_not_grow_with_the_leases() -> None:
    ledger, _ = ledger_of(prompts=100, samples=1)
    ledger.put_rows(100, ["x"], 0)
    for _ in range(50):
        ledger.take(want(batch=2, lease_s=9.0))
    leases = [reason for reason in explain(ledger, want()).reasons if reason.code == "leased"]

    assert len(leases) == NAMED + 1
    assert sum(reason.rows for reason in leases) == 100


def test_rows_far_behind_are_found_too() -> None:
    ledger, _ = ledger_of(prompts=10_000, samples=1)
    indexes = ledger.put_rows(10_000, ["x"], 0)
    assert indexes
    ledger.put_fields(indexes[:9_998], ["y"])
    missing = reasons(ledger, want(batch=1, fields=("x", "y")))["field_missing"]

    assert missing.indexes == tuple(indexes[9_998:])


def test_every_code_is_in_the_list() -> None:
    ledger, _ = ledger_of()
    ledger.put_rows(4, ["x"], 0)
    ledger.take(want(batch=2, lease_s=9.0))

    assert {reason.code for reason in explain(ledger, want(batch=8, fields=("y",))).reasons} <= set(CODES)
