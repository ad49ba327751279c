"""The reckoning finds what it is there to find."""

from pathlib import Path
from typing import Any

import pytest

from tests.soak.truth import Line, Notes, faults, gathered, read
from tests.soak.values import checksum, key_of, make

TASKS = ["rollout", "train"]
PUT: Line = {"kind": "put", "ids": [1, 2], "sums": [10, 20]}


def ack(ids: list[int], lease: int, task: str = "rollout", rank: int | None = None) -> Line:
    return {"kind": "ack", "task": task, "ids": ids, "lease": lease, "rank": rank}


def found(*lines: Line, resident: dict[str, set[int]] | None = None) -> list[str]:
    return faults(gathered(lines, {"train": 2}), {"train": {1, 2}} if resident is None else resident, TASKS)


def test_rows_that_were_consumed_or_are_there_are_no_fault() -> None:
    assert found(PUT, ack([1], 7), ack([2], 8)) == []
    assert found(PUT, ack([1, 2], 7), ack([1], 9, "train", 0), ack([2], 9, "train", 1), resident={}) == []


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([ack([1], 7)], "row 2 is lost to task 'rollout'"),
        ([ack([1, 2], 7), ack([1], 8)], "row 1 was consumed by task 'rollout' under the leases [7, 8]"),
        ([ack([1, 2], 7), PUT], "row 1 was given to two puts"),
        (
            [ack([1, 2], 7), {"kind": "seen", "task": "rollout", "ids": [1], "sums": [11], "keys": [5]}],
            "task 'rollout' read another value of row 1 than was put",
        ),
        (
            [ack([1, 2], 7), {"kind": "seen", "task": "rollout", "ids": [1, 2], "sums": [10, 20], "keys": [5, 5]}],
            "one put made the rows 1 and 2",
        ),
        ([ack([1, 2], 7), {"kind": "bad", "text": "torn"}], "torn"),
    ],
)
def test_each_fault_is_found(lines: list[Line], fault: str) -> None:
    assert fault in found(PUT, *lines)


def test_a_group_has_consumed_what_all_ranks_voted_for() -> None:
    one, both = [PUT, ack([1, 2], 7), ack([1], 9, "train", 0)], ack([2], 9, "train", 1)
    assert len(found(*one, resident={})) == 2
    assert found(*one, both, resident={}) == []
    assert len(found(*one, both, ack([1], 10, "train", 0), ack([2], 10, "train", 1), resident={})) == 2


@pytest.mark.parametrize("kind", ["try ack", "wrote", "try drop", "drop", "clear"])
def test_what_may_have_been_carried_out_is_no_loss(kind: str) -> None:
    assert found(PUT, ack([1], 7), {"kind": kind, "task": "rollout", "ids": [2]}) == []


def test_a_process_that_died_within_a_line_leaves_the_others(tmp_path: Path) -> None:
    Notes(tmp_path / "one").note("put", ids=[1], sums=[2])
    with open(tmp_path / "one", "a") as file:
        file.write('{"kind": "pu')
    lines: list[dict[str, Any]] = read(tmp_path)

    assert lines == [{"kind": "put", "ids": [1], "sums": [2]}]


def test_a_value_says_whether_it_is_whole() -> None:
    value = make(12345, 1000)
    assert key_of(value) == 12345
    for place in (0, 8, 500, 999):
        with pytest.raises(ValueError, match="not as they were made"):
            key_of(value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :])
    assert key_of(make(7, 8)) == 7
    assert checksum(value) == checksum(make(12345, 1000))
