"""Custom samplers in a real controller: served by a copy, and harmless when they are wrong."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.transfer_queue import samplers_for_tests as made
from tests.transfer_queue.test_client import Connect, Start, in_background, wait_for_waiting
from transfer_queue import (
    DPGroupError,
    ExhaustedError,
    NotReadyError,
    SamplerError,
    StepClearedError,
    TransferQueueClient,
    TransferQueueController,
    wire,
)
from transfer_queue.ledger.explain import Explanation
from transfer_queue.samplers.travel import SamplerSpec


@pytest.fixture(scope="module")
def controller() -> Iterator[TransferQueueController]:
    """One controller for the module: its process imports torch once."""
    samplers = {
        fault: made.Faulty(fault)
        for fault in (
            "twice",
            "not offered",
            "too many",
            "raises",
            "hangs",
            "nothing",
            "unready",
            "exits",
            "unprintable",
            "mask",
            "floats",
        )
    }
    with TransferQueueController.start(
        global_batch_size=4,
        num_n_samples=2,
        num_global_batch=2,
        task_samplers={
            **samplers,
            "partial": made.Faulty("partial"),
            "good": made.Documented,
            "biased": made.Biased,
            "largest": made.Largest("n"),
            "choosy": made.Choosy,
        },
        sampler_timeout_s=1.0,
    ) as running:
        with TransferQueueClient("warm", running.get_info()) as client:
            client.put({"x": ["1"] * 8}, global_step=0)
            client.get_meta(["x"], 1, 0, "good", timeout_s=60)
            client.clear(0)
        yield running


@pytest.fixture
def client(controller: TransferQueueController) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", controller.get_info()) as one:
        for step in one.stats().partitions:
            one.clear(step, force=True)
        yield one


def eventually(ask: Callable[[], Explanation], code: str) -> Explanation:
    """The explanation once it has a reason of that code: the sampler answers in its own time."""
    while True:
        explanation = ask()
        if code in {reason.code for reason in explanation.reasons}:
            return explanation
        time.sleep(0.01)


def test_what_sample_returns_is_taken_in_its_order(client: TransferQueueClient) -> None:
    client.put({"x": [str(i) for i in range(8)]}, global_step=1)
    meta = client.get_meta(["x"], 3, 1, "good", lease_s=9)
    rest = client.get_meta(["x"], 5, 1, "good", lease_s=9)

    assert list(client.get_data(meta)["x"]) == ["7", "6", "5"]
    assert list(client.get_data(rest)["x"]) == ["4", "3", "2", "1", "0"]


def test_a_custom_sampler_is_asked_again_when_rows_arrive(client: TransferQueueClient) -> None:
    client.put({"x": ["1", "2"]}, global_step=1)
    result = in_background(lambda: client.get_meta(["x", "y"], 4, 1, "good", timeout_s=10))
    wait_for_waiting(client, "good")
    client.put({"x": ["3", "4"], "y": ["3", "4"]}, global_step=1)
    client.put({"x": ["5", "6"], "y": ["5", "6"]}, global_step=1)

    assert list(client.get_data(result())["y"]) == ["6", "5", "4", "3"]


def test_without_a_step_the_oldest_partition_with_a_full_batch_is_taken(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 2}, global_step=1)
    client.put({"x": ["2"] * 4}, global_step=2)

    assert client.get_meta(["x"], 3, None, "good", timeout_s=5).global_step == 2
    assert client.get_meta(["x"], 2, None, "good", timeout_s=5).global_step == 1


def test_parameters_reach_the_sampler_and_dp_slices_its_answer(client: TransferQueueClient) -> None:
    client.put({"x": [str(i) for i in range(8)]}, global_step=1)
    got = []
    for rank in (1, 0):
        params = {"parity": 1, "dp_rank": rank, "dp_size": 2, "dp_group_id": "g"}
        meta = client.get_meta(["x"], 2, 1, "biased", sampler_params=params, timeout_s=5)
        got.append(list(client.get_data(meta)["x"]))

    assert got == [["5", "7"], ["1", "3"]]
    with pytest.raises(DPGroupError, match="new dp_group_id"):
        client.get_meta(["x"], 2, 1, "biased", sampler_params=params)


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ("twice", "returned index 0 twice"),
        ("not offered", "returned index 10000, which was not offered to it"),
        ("too many", "returned 3 indices where 2 were asked for"),
        ("raises", "raised ZeroDivisionError: no such thing"),
        ("exits", "raised SystemExit: 3"),
        ("unprintable", "raised Unprintable"),
        ("mask", "raised TypeError: True is no index: return a list of row numbers"),
        ("floats", r"raised TypeError: 0\.5 is no index: return a list of row numbers"),
    ],
)
def test_a_sampler_that_misbehaves_is_named_and_nothing_is_taken(
    client: TransferQueueClient, task: str, named: str
) -> None:
    client.put({"x": ["1"] * 8}, global_step=1)
    before = client.stats()
    with pytest.raises(SamplerError, match=rf"sampler Faulty\('{task}'\) of task '{task}' {named}; nothing was taken"):
        client.get_meta(["x"], 2, 1, task, timeout_s=5)
    after = client.stats()

    assert after.tasks[task].consumed == after.tasks[task].leased == 0
    assert after.leases == before.leases == 0


def test_a_sampler_that_offers_what_is_not_ready_is_told(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 8}, global_step=1)
    with pytest.raises(SamplerError, match=r"offered row 0, which does not exist, is taken or lacks one of \['y'\]"):
        client.get_meta(["y"], 2, 1, "unready", timeout_s=5)


def test_partial_groups_are_refused_where_groups_were_asked_for(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 8}, global_step=1)
    with pytest.raises(SamplerError, match="returned 1 of the 2 rows of group 0"):
        client.get_meta(["x"], 2, 1, "partial", get_n_samples=True, timeout_s=5)

    assert client.get_meta(["x"], 2, 1, "partial", timeout_s=5).global_indexes


def test_a_sampler_that_finds_nothing_lets_its_caller_wait(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 8}, global_step=1)
    with pytest.raises(NotReadyError, match="8 ready"):
        client.get_meta(["x"], 2, 1, "nothing", timeout_s=0.3)


def test_a_sampler_that_hangs_blocks_nobody_else(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 8}, global_step=1)
    hanging = in_background(lambda: client.get_meta(["x"], 2, 1, "hangs", timeout_s=20))
    wait_for_waiting(client, "hangs")
    began = time.monotonic()
    client.get_meta(["x"], 2, 1, "other", timeout_s=5)
    client.get_meta(["x"], 2, 1, "good", timeout_s=5)
    assert time.monotonic() - began < 0.5
    with pytest.raises(SamplerError, match="has not answered for 1 s"):
        hanging()
    with pytest.raises(NotReadyError, match=r"2 cannot be chosen: its sampler .* has not answered for \d s"):
        client.get_meta(["x"], 2, 1, "hangs", timeout_s=0.1)
    with pytest.raises(SamplerError, match="has not answered for 1 s"):
        client.get_meta(["x"], 2, 1, "hangs", timeout_s=20)


def test_a_step_that_is_cleared_ends_the_wait_for_a_custom_sampler(client: TransferQueueClient) -> None:
    client.put({"x": ["1"]}, global_step=1, group_id="a")
    result = in_background(lambda: client.get_meta(["x"], 2, 1, "good", timeout_s=20))
    wait_for_waiting(client, "good")
    client.clear(1)
    with pytest.raises(StepClearedError):
        result()


@pytest.mark.parametrize(
    "values",
    [torch.tensor([3, 1, 4, 2]), [3.0, 1.0, 4.0, 2.0], np.array([[3], [1], [4], [2]], dtype=np.int16)],
)
def test_a_sampler_sees_the_values_that_it_asks_for(client: TransferQueueClient, values: Any) -> None:
    name = f"n{type(values).__name__}"
    client.register_sampler(name, made.Largest(name))
    client.put({"x": ["3", "1", "4", "2"], name: values}, global_step=1)
    client.put({"x": ["no value"] * 4}, global_step=1)
    first = client.get_meta(["x"], 1, 1, name, timeout_s=5)
    rest = client.get_meta(["x"], 3, 1, name, timeout_s=5)

    assert list(client.get_data(first)["x"]) == ["4"]
    assert list(client.get_data(rest)["x"]) == ["3", "2", "1"]


@pytest.mark.parametrize("values", [["a", "b"], [[1, 2], [3]], [None, 1], torch.zeros(2, 9), [{"a": 1}, {}]])
def test_a_field_that_is_no_number_is_an_error_that_names_it(client: TransferQueueClient, values: Any) -> None:
    name = f"odd {values!r}"
    client.register_sampler(name, made.Largest(name))
    client.put({"x": ["1", "2"], name: values}, global_step=1)
    with pytest.raises(SamplerError, match=r"a sampler wants the values of field .odd .*first of 2 rows holds"):
        client.get_meta(["x"], 1, 1, name, timeout_s=5)


def test_rejected_rows_are_dropped_for_every_task_that_has_not_taken_them(client: TransferQueueClient) -> None:
    client.put({"x": [str(i) for i in range(8)]}, global_step=1)
    taken = client.get_meta(["x"], 1, 1, "other", lease_s=60)
    params = {"hide": [], "reject": {"bad": [0, 7], "worse": [3]}}
    meta = client.get_meta(["x"], 5, 1, "choosy", sampler_params=params, timeout_s=5)
    stats = client.stats()

    assert list(client.get_data(meta)["x"]) == ["6", "5", "4", "2", "1"]
    assert stats.tasks["choosy"].dropped == {"bad": 2, "worse": 1}
    assert stats.tasks["other"].dropped == {"bad": 1, "worse": 1}
    client.ack(taken)
    with pytest.raises(ExhaustedError, match="at most 5 can become ready"):
        client.get_meta(["x"], 6, 1, "later")


def test_rows_are_rejected_even_where_too_few_are_left(client: TransferQueueClient) -> None:
    client.put({"x": ["1"] * 4}, global_step=1)
    params = {"hide": [], "reject": {"bad": [0]}}
    with pytest.raises(SamplerError, match="row 0"):  # it says so again, when the row is gone
        client.get_meta(["x"], 4, 1, "choosy", sampler_params=params, timeout_s=5)

    assert client.stats().tasks["choosy"].dropped == {"bad": 1}


@pytest.mark.parametrize(
    ("reject", "named"),
    [
        ({"bad": [1], "worse": [1]}, "rejected row 1 (worse) twice"),
        ({"bad": [1, 4]}, "rejected row 4 (bad), which was not put, or which the task cannot take"),
        ({"bad": [-1]}, "rejected row -1 (bad), which was not put"),
        ({"bad": [0]}, "rejected row 0 (bad), which was not put, or which the task cannot take"),
        ({"bad": ["1"]}, "raised TypeError: '1' is no index"),
        (["bad"], "raised AttributeError"),
    ],
)
def test_rows_that_may_not_be_rejected_change_nothing(client: TransferQueueClient, reject: Any, named: str) -> None:
    client.put({"x": ["1"] * 4}, global_step=1)
    client.get_meta(["x"], 1, 1, "choosy", sampler_params={"hide": [1, 2, 3], "reject": {}}, timeout_s=5)
    params = {"hide": [], "reject": reject}
    with pytest.raises(SamplerError, match=re.escape(named)):
        client.get_meta(["x"], 1, 1, "choosy", sampler_params=params, timeout_s=5)

    assert client.stats().tasks["choosy"].dropped == {}


def test_the_explanation_counts_the_rows_that_a_sampler_withholds(client: TransferQueueClient) -> None:
    rows = client.put({"x": ["1"] * 6}, global_step=1).global_indexes
    params = {"hide": [1, 3, 4], "reject": {}}
    with pytest.raises(NotReadyError, match=r"3 ready.*; 2 odd; 1 held back by sampler Choosy\(\)"):
        client.get_meta(["x"], 4, 1, "choosy", sampler_params=params, timeout_s=0.3)
    waiting = in_background(
        lambda: client.get_meta(["x"], 4, 1, "choosy", True, params, timeout_s=20)  # whole groups of 2
    )
    wait_for_waiting(client, "choosy")
    found = {reason.code: reason for reason in eventually(lambda: client.why("choosy"), "withheld").reasons}

    assert {code: reason.rows for code, reason in found.items()} == {"odd": 2, "withheld": 4, "not_put": 2}
    assert found["odd"].indexes == (rows[1], rows[3])
    assert found["withheld"].indexes == (rows[0], rows[2], rows[4], rows[5])
    client.clear(1)
    with pytest.raises(StepClearedError):
        waiting()


def test_a_client_registers_a_sampler_by_path(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    client.register_sampler("train", made.Documented)
    client.put({"x": ["1", "2"]}, global_step=0)

    assert list(client.get_data(client.get_meta(["x"], 2, 0, "train", timeout_s=30))["x"]) == ["2", "1"]
    with pytest.raises(SamplerError, match="a lambda"):
        controller.register_sampler("train", lambda: made.Documented())


def test_a_sampler_that_takes_long_to_make_blocks_nobody(start: Start, connect: Connect, tmp_path: Path) -> None:
    client, made_now = connect(start()), tmp_path / "now"
    body = wire.RegisterSampler("train", SamplerSpec(f"{made.__name__}:Slow", [str(made_now)], {}))
    registered = in_background(lambda: client.request(wire.Done, body, "register_sampler"))
    client.stats()
    made_now.touch()

    assert registered() == wire.Done()


def test_a_module_that_exits_does_not_take_the_controller_with_it(
    start: Start, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(5)")
    monkeypatch.syspath_prepend(tmp_path)
    client = connect(start())
    body = wire.RegisterSampler("train", SamplerSpec("leaves_at_once:Sampler", [], {}))
    with pytest.raises(SamplerError, match="cannot import the sampler 'leaves_at_once:Sampler': SystemExit: 5"):
        client.request(wire.Done, body, "register_sampler")

    assert client.stats().partitions == []
