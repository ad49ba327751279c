"""`SeqlenBalancedSampler` and `StalenessFilter`: by themselves, together, and in a real controller."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer_queue import samplers_for_tests as made
from tests.transfer_queue.test_client import in_background, wait_for_waiting
from tests.transfer_queue.test_custom_samplers import eventually
from transfer_queue import (
    ConfigurationError,
    ExhaustedError,
    GroupError,
    NotReadyError,
    SamplerError,
    TransferQueueClient,
    TransferQueueController,
)
from transfer_queue.ledger import QueueShape
from transfer_queue.samplers import (
    BaseSampler,
    DPSampler,
    GRPOSampler,
    SeqlenBalancedSampler,
    SequentialSampler,
    StalenessFilter,
)
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import build, spec_of

SAMPLERS: dict[str, BaseSampler] = {
    "balanced": SeqlenBalancedSampler("length", num_n_samples=2),
    "rows": SeqlenBalancedSampler(),
    "drop": StalenessFilter(SequentialSampler, 2),
    "wait": StalenessFilter(SequentialSampler(), max_staleness=2, policy="wait"),
    "grpo": StalenessFilter(GRPOSampler(2), 2),
    "both": StalenessFilter(SeqlenBalancedSampler(num_n_samples=2), 2),
    "own": StalenessFilter(made.Largest("length"), 2),
}


@pytest.fixture(scope="module")
def controller() -> Iterator[TransferQueueController]:
    with TransferQueueController.start(
        global_batch_size=8, num_n_samples=2, num_global_batch=2, task_samplers=SAMPLERS
    ) as running:
        yield running


@pytest.fixture
def client(controller: TransferQueueController) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", controller.get_info()) as one:
        for step in one.stats().partitions:
            one.clear(step, force=True)
        yield one


def slices(client: TransferQueueClient, task: str, batch_size: int, ranks: int, **more: Any) -> list[list[int]]:
    """The lengths that each rank gets."""
    got = []
    for rank in range(ranks):
        params = {"dp_rank": rank, "dp_size": ranks, "dp_group_id": "g", **more}
        meta = client.get_meta(["length"], batch_size, 1, task, sampler_params=params, timeout_s=20)
        assert all(a == b for a, b in zip(meta.group_ids[::2], meta.group_ids[1::2], strict=True)) or task == "rows"
        got.append(client.get_data(meta)["length"].tolist())
    return got


def test_the_ranks_of_a_group_get_whole_groups_of_nearly_equal_total_length(client: TransferQueueClient) -> None:
    lengths = [9, 1, 8, 2, 1, 1, 1, 1, 20, 0, 3, 3, 2, 2, 7, 7]
    client.put({"length": torch.tensor(lengths, dtype=torch.float32)}, global_step=1)
    got = slices(client, "balanced", 8, 2)

    assert sorted(got[0] + got[1]) == sorted(lengths)
    assert [sum(each) for each in got] == [34, 34]
    assert [sum(lengths[:8]), sum(lengths[8:])] == [24, 44]


def test_rows_are_balanced_too_and_only_the_first_of_the_batch(client: TransferQueueClient) -> None:
    client.put({"length": torch.tensor([5.0, 5, 1, 1, 1, 1, 0, 0, 90, 90])}, global_step=1)

    assert slices(client, "rows", 4, 2) == [[5, 1, 1, 0], [5, 1, 1, 0]]


def test_rows_without_a_length_wait_and_are_explained(client: TransferQueueClient) -> None:
    meta = client.put({"x": ["1"] * 4}, global_step=1)
    asked = in_background(lambda: client.get_meta(["x"], 4, 1, "balanced", timeout_s=20))
    wait_for_waiting(client, "balanced")
    explanation = eventually(lambda: client.why("balanced"), "no_length")
    client.put({"length": torch.tensor([float("nan"), 1.0, 2.0, 3.0])}, metadata=meta)
    incomplete = eventually(lambda: client.why("balanced"), "withheld")

    assert "0 ready" in str(explanation)
    assert "4 without a finite number in field 'length'" in str(explanation)
    assert {reason.code: reason.rows for reason in incomplete.reasons} == {"no_length": 1, "withheld": 1, "not_put": 12}
    client.put({"x": ["1"] * 4, "length": torch.ones(4)}, global_step=1)
    assert asked().global_indexes[0] % 16 == 2


def test_a_batch_that_does_not_deal_evenly_is_refused() -> None:
    values = {"length": np.ones(8)}
    with pytest.raises(GroupError, match=r"batch_size=6 .* not divisible by dp_size=2 \* num_n_samples=2"):
        SeqlenBalancedSampler(num_n_samples=2).sample(list(range(8)), 6, dp_size=2, values=values)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_balancing_changes_the_order_of_the_sequential_batch_and_nothing_else(data: st.DataObject) -> None:
    size, ranks = data.draw(st.integers(1, 3), "group"), data.draw(st.integers(1, 4), "ranks")
    ready = data.draw(st.lists(st.integers(0, 40), unique=True), "ready")
    batch = size * data.draw(st.integers(1, 4), "groups a rank") * ranks
    values = {"length": np.random.default_rng(0).lognormal(3, 1, 41)}
    extra = {"get_n_samples": True, "num_n_samples": size, "dp_size": ranks, "values": values}
    expected = SequentialSampler().sample(ready, batch, **extra)
    got = SeqlenBalancedSampler().sample(ready, batch, **extra)

    assert sorted(got) == (expected if len(expected) == batch else [])
    assert all(row + 1 == after for i, (row, after) in enumerate(itertools.pairwise(got)) if (i + 1) % size)


def put_versions(client: TransferQueueClient, versions: Any) -> None:
    client.put({"x": [str(i) for i in range(len(versions))], "version": torch.tensor(versions)}, global_step=1)


@pytest.mark.parametrize(("versions", "now"), [([5, 2, 4, 3, 5, 1], 5), ([[0, v] for v in (5, 2, 4, 3, 5, 1)], [1, 5])])
def test_a_row_that_is_too_old_is_dropped_for_every_task(client: TransferQueueClient, versions: Any, now: Any) -> None:
    put_versions(client, versions)
    meta = client.get_meta(["x"], 4, 1, "drop", sampler_params={"version": now}, timeout_s=20)

    assert list(client.get_data(meta)["x"]) == ["0", "2", "3", "4"]
    assert client.stats().tasks["drop"].dropped == {"stale": 2}
    assert client.get_meta(["x"], 4, 1, "other", timeout_s=5).global_indexes == meta.global_indexes


def test_a_row_that_is_too_old_may_be_left_alone(client: TransferQueueClient) -> None:
    put_versions(client, [5, 2, 4, 3, 5, 1])
    with pytest.raises(NotReadyError, match=r"4 ready.*; 2 stale by more than 2 versions"):
        client.get_meta(["x"], 6, 1, "wait", sampler_params={"version": 5}, timeout_s=0.5)

    assert client.stats().tasks["wait"].dropped == {}
    assert len(client.get_meta(["x"], 6, 1, "wait", sampler_params={"version": 3}, timeout_s=20)) == 6


def test_a_waiting_task_counts_stale_rows_and_is_served_by_fresh_ones(client: TransferQueueClient) -> None:
    put_versions(client, [5, 2])
    asked = in_background(lambda: client.get_meta(["x"], 2, 1, "wait", sampler_params={"version": 5}, timeout_s=20))
    wait_for_waiting(client, "wait")
    explanation = eventually(lambda: client.why("wait"), "stale")
    put_versions(client, [4, 4])

    assert (explanation.ready, {r.code: r.rows for r in explanation.reasons}) == (1, {"stale": 1, "not_put": 14})
    assert [index % 16 for index in asked().global_indexes] == [0, 2]


def test_what_is_left_of_a_group_goes_with_its_stale_row(client: TransferQueueClient) -> None:
    put_versions(client, [5, 5, 5, 1, 4, 4])
    meta = client.get_meta(["x"], 4, 1, "grpo", sampler_params={"version": 5}, timeout_s=20)

    assert list(client.get_data(meta)["x"]) == ["0", "1", "4", "5"]
    assert client.stats().tasks["grpo"].dropped == {"stale": 2}
    with pytest.raises(ExhaustedError):
        client.get_meta(["x"], 16, 1, "grpo", sampler_params={"version": 5})


def test_it_composes_with_balancing_and_with_a_sampler_of_ones_own(client: TransferQueueClient) -> None:
    lengths, versions = torch.tensor([9.0, 9, 1, 1, 5, 5, 5, 5, 1, 1]), torch.tensor([5, 5, 1, 1, 5, 5, 5, 5, 5, 5])
    client.put({"length": lengths, "version": versions}, global_step=1)

    assert slices(client, "both", 4, 2, version=5) == [[9, 9, 1, 1], [5, 5, 5, 5]]
    client.put({"length": torch.tensor([3.0, 8, 7, 2]), "version": torch.tensor([5, 1, 4, 5])}, global_step=2)
    meta = client.get_meta(["length"], 3, 2, "own", sampler_params={"version": 5}, timeout_s=20)
    assert client.get_data(meta)["length"].tolist() == [7, 3, 2]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (None, "must know how far the consumer is"),
        ({"version": "7"}, "version='7' is neither"),
        ({"version": [1, 2, 3]}, "neither a whole number nor"),
    ],
)
def test_the_consumer_must_say_which_version_it_is_at(client: TransferQueueClient, params: Any, named: str) -> None:
    put_versions(client, [5, 5])
    with pytest.raises(SamplerError, match=named):
        client.get_meta(["x"], 1, 1, "drop", sampler_params=params, timeout_s=20)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(0, 12),
    st.integers(0, 4),
    st.sampled_from(["drop", "wait"]),
)
def test_no_row_older_than_max_staleness_is_ever_offered(versions: list[int], now: int, most: int, policy: str) -> None:
    sampler, rows = StalenessFilter(SequentialSampler, most, policy=policy), list(range(len(versions)))
    produced, taken = torch.ones(len(rows), 1, dtype=torch.bool), torch.zeros(len(rows), dtype=torch.bool)
    extra = {"values": {"version": np.array(versions, dtype=float)}, "version": now, "num_n_samples": 1}
    arguments = (rows, produced, taken, ["x"], {"x": 0})
    fresh = [row for row in rows if now - versions[row] <= most]
    stale = [row for row in rows if now - versions[row] > most]

    assert sampler.filter_ready_indices(*arguments, **extra) == fresh
    assert sampler.reject(*arguments, **extra) == ({"stale": stale} if policy == "drop" else {})
    assert sampler.explain_withheld(rows, **extra)[0].rows == stale


def test_samplers_inside_samplers_travel() -> None:
    for sampler in (*SAMPLERS.values(), StalenessFilter(inner=StalenessFilter(GRPOSampler(4), 1), max_staleness=2)):
        again = build(spec_of(sampler))

        assert type(again) is type(sampler)
        assert (again.value_fields, again.whole_groups) == (sampler.value_fields, sampler.whole_groups)
    nested = build(spec_of(StalenessFilter(inner=GRPOSampler(4), max_staleness=2)))
    assert repr(nested) == "StalenessFilter(inner=GRPOSampler(4), max_staleness=2)"
    with pytest.raises(SamplerError, match=r"a lambda.*cannot travel"):
        spec_of(StalenessFilter(lambda: GRPOSampler(2), 1))


def test_arguments_that_cannot_work_are_refused() -> None:
    for make, named in (
        (lambda: StalenessFilter(SequentialSampler, -1), "max_staleness"),
        (lambda: StalenessFilter(SequentialSampler, 1, policy="hide"), "policy must be 'drop' or 'wait', not 'hide'"),
        (lambda: StalenessFilter(DPSampler(0, 2), 1), r"DPSampler\(0, 2\) chooses no rows"),
        (lambda: SeqlenBalancedSampler(num_n_samples=0), "num_n_samples"),
        (lambda: SeqlenBalancedSampler(""), "length_field"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            make()
    for sampler in (SeqlenBalancedSampler(num_n_samples=3), StalenessFilter(GRPOSampler(3), 1)):
        with pytest.raises(GroupError, match="does not fit a controller with num_n_samples=2"):
            SamplerRegistry(QueueShape(4, 1, 2)).register(sampler)
