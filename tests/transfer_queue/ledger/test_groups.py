import pytest

from tests.transfer_queue.ledger.clock import ledger_of, want
from transfer_queue.errors import GroupError


def test_a_put_of_whole_multiples_forms_groups_in_order() -> None:
    ledger, _ = ledger_of(samples=2)
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes

    assert ledger.steps.places(indexes) == ([0, 0, 0, 0], [0, 0, 1, 1])


def test_other_puts_say_which_prompt_they_belong_to() -> None:
    ledger, _ = ledger_of(samples=4)
    with pytest.raises(GroupError, match=r"a put of 6 rows makes no whole groups of num_n_samples=4"):
        ledger.put_rows(6, ["x"], 0)
    with pytest.raises(GroupError, match="2 groups for 3 rows"):
        ledger.put_rows(3, ["x"], 0, ["a", "b"])


def test_rows_of_one_prompt_meet_in_one_group_in_any_order() -> None:
    ledger, _ = ledger_of(samples=2)
    put = [ledger.put_rows(1, ["x"], 0, [name]) for name in ("a", "b", "c", "b")]
    taken = ledger.take(want(batch=2, whole_groups=True))

    assert taken is not None
    assert taken.indexes == [*(put[1] or []), *(put[3] or [])]
    assert ledger.steps.places(taken.indexes)[1] == ["b", "b"]


def test_a_group_never_straddles_partitions() -> None:
    ledger, _ = ledger_of(prompts=1, partitions=2, samples=2)
    ledger.put_rows(1, ["x"], None, ["a"])
    ledger.put_rows(1, ["x"], None, ["b"])
    ledger.put_rows(1, ["x"], None, ["a"])
    taken = ledger.take(want(batch=2, whole_groups=True))

    assert taken is not None
    assert ledger.steps.places(taken.indexes) == ([0, 0], ["a", "a"])


def test_a_group_that_is_full_takes_no_more_and_nothing_changes() -> None:
    ledger, _ = ledger_of(samples=2)
    ledger.put_rows(2, ["x"], 0, ["a", "a"])
    for step in (0, None):
        with pytest.raises(GroupError, match="group 'a' has room for 0 more rows"):
            ledger.put_rows(1, ["x"], step, ["a"])
    with pytest.raises(GroupError, match="brings 3"):
        ledger.put_rows(3, ["x"], 0, ["b", "b", "b"])

    assert ledger.steps.alive[0].produced == 2


def test_groups_are_whole_in_any_completion_order() -> None:
    ledger, _ = ledger_of(prompts=3, samples=3)
    indexes = ledger.put_rows(9, ["x"], 0)
    assert indexes
    request = want(batch=3, fields=("y",), whole_groups=True)
    for row in (8, 0, 3, 7, 1, 6):
        assert ledger.take(request) is None
        ledger.put_fields([indexes[row]], ["y"])
    taken = ledger.take(request)

    assert taken is not None
    assert taken.indexes == [6, 7, 8]


def test_groups_are_whole_after_clear_and_put() -> None:
    ledger, _ = ledger_of(prompts=2, samples=3)
    ledger.put_rows(3, ["x"], 0)
    ledger.clear(0)
    indexes = ledger.put_rows(6, ["x"], 0)
    assert indexes
    ledger.put_fields(indexes[2:], ["y"])
    taken = ledger.take(want(batch=3, fields=("y",), whole_groups=True, step=0))

    assert taken is not None
    assert taken.indexes == indexes[3:]


def test_batches_of_groups_are_multiples_of_the_group() -> None:
    ledger, _ = ledger_of(samples=4)
    with pytest.raises(GroupError, match=r"batch_size=6 is not divisible by num_n_samples=4"):
        want(batch=6, whole_groups=True).check(ledger.shape)


def test_no_two_groups_of_a_step_have_one_name() -> None:
    ledger, _ = ledger_of(prompts=3, samples=2)
    ledger.put_rows(2, ["x"], 0, [1, 1])
    indexes = ledger.put_rows(4, ["x"], 0)
    assert indexes
    names = set(ledger.steps.places([0, *indexes])[1])
    assert len(names) == 3
    for name in names:
        with pytest.raises(GroupError, match="has room for 0 more rows"):
            ledger.put_rows(1, ["x"], 0, [name])
