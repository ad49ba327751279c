"""Samplers by themselves, how they travel, and that the ledger's own path does what their methods say."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer_queue import samplers_for_tests as made
from transfer_queue.errors import ConfigurationError, DPGroupError, GroupError, SamplerError
from transfer_queue.ledger import DPPlace, Ledger, QueueShape, Want
from transfer_queue.ledger.view import FREE
from transfer_queue.samplers import BaseSampler, DPSampler, GRPOSampler, SequentialSampler
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerSpec, build, instance_of, spec_of


def status(ledger: Ledger, step: int, task: str) -> tuple[list[int], torch.Tensor, torch.Tensor, dict[str, int]]:
    """The documented arguments of `filter_ready_indices` for one partition."""
    partition = ledger.steps.alive[step]
    columns = {field: i for i, field in enumerate(partition.fields)}
    produced = torch.from_numpy(np.stack([partition.has(field) for field in columns], axis=1))
    taken = torch.from_numpy(partition.task(task).state != FREE)
    return np.flatnonzero(partition.exists).tolist(), produced, taken, columns


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_ledgers_path_and_the_samplers_methods_agree(data: st.DataObject) -> None:
    prompts, samples = data.draw(st.integers(1, 5), "prompts"), data.draw(st.integers(1, 3), "samples")
    ledger = Ledger(QueueShape(prompts, 1, samples), lambda: 0.0)
    for label in data.draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=15), "labels"):
        try:
            ledger.put_rows(1, ["x"], 0, [label])
        except GroupError:
            continue
    rows = np.flatnonzero(ledger.steps.alive[0].exists).tolist()
    some = data.draw(st.lists(st.sampled_from(rows), unique=True, min_size=1), "with y")
    ledger.put_fields(some, ["y"])
    ledger.take(Want("train", ("x",), data.draw(st.integers(1, min(2, len(rows))), "taken"), None))
    fields = data.draw(st.sampled_from([("x",), ("y", "x"), ("y", "z")]), "fields")
    whole, ranks = data.draw(st.booleans(), "whole groups"), data.draw(st.integers(1, 3), "ranks")
    batch = data.draw(st.integers(1, 3), "batch") * (samples if whole else 1)
    everything, produced, taken, columns = status(ledger, 0, "train")
    sampler: BaseSampler = GRPOSampler(samples) if whole else SequentialSampler()
    ready = sampler.filter_ready_indices(everything, produced, taken, list(fields), columns)
    expected = sampler.sample(ready, batch * ranks)
    with_keyword = {"get_n_samples": whole, "num_n_samples": samples}
    in_order = SequentialSampler()
    assert (
        in_order.sample(
            in_order.filter_ready_indices(everything, produced, taken, list(fields), columns),
            batch * ranks,
            **with_keyword,
        )
        == expected
    )
    for rank in range(ranks):
        place = DPPlace(rank, ranks, "g") if ranks > 1 else None
        got = (
            ledger.take(Want("train", fields, batch, None, whole, place))
            if batch * ranks <= prompts * samples
            else None
        )
        mine = DPSampler(rank, ranks).sample(expected, batch) if len(expected) == batch * ranks else []

        assert (got.indexes if got else []) == mine


def test_grpo_returns_whole_groups_only() -> None:
    sampler = GRPOSampler(num_n_samples=2)

    assert sampler.sample([0, 2, 3, 5, 4], 4) == [2, 3, 4, 5]
    assert sampler.sample([0, 3], 2) == []
    with pytest.raises(GroupError, match=r"batch_size=3 is not divisible by num_n_samples=2"):
        sampler.sample([0, 1, 2], 3)


def test_a_row_needs_every_field_and_must_not_be_taken() -> None:
    produced = torch.tensor([[1, 1], [1, 0], [1, 1]], dtype=torch.bool)
    taken = torch.tensor([0, 0, 1], dtype=torch.bool)
    arguments = ([0, 1, 2], produced, taken)

    assert SequentialSampler().filter_ready_indices(*arguments, ["x", "y"], {"x": 0, "y": 1}) == [0]
    assert SequentialSampler().filter_ready_indices(*arguments, ["x"], {"x": 0, "y": 1}) == [0, 1]
    assert SequentialSampler().filter_ready_indices(*arguments, ["z"], {"x": 0, "y": 1}) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((2, 2), "dp_rank=2 is out of range"),
        ((-1, 2), "dp_rank=-1"),
        ((0, 0), "dp_size must be at least 1"),
        ((0, 2, 4, 4), "world_rank=4 is out of range"),
        ((0, 2, 0, 3), "world_size=3 is not divisible by dp_size=2"),
        (("0", 2), "whole number, not '0'"),
    ],
)
def test_dp_sampler_checks_its_arguments(arguments: tuple[int, ...], named: str) -> None:
    with pytest.raises(DPGroupError, match=named):
        DPSampler(*arguments)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_grpo_sampler_checks_its_argument(value: int) -> None:
    with pytest.raises(ConfigurationError, match="num_n_samples"):
        GRPOSampler(value)


def test_a_sampler_is_an_instance_a_class_or_a_callable() -> None:
    for given_sampler in (SequentialSampler(), SequentialSampler, lambda: SequentialSampler()):
        assert isinstance(instance_of(given_sampler), SequentialSampler)
    with pytest.raises(SamplerError, match="3, which is no BaseSampler"):
        instance_of(made.make_nothing)
    with pytest.raises(SamplerError, match="neither a sampler"):
        instance_of(7)
    with pytest.raises(SamplerError, match="OSError: no disk"):
        instance_of(made.Unfit)


@pytest.mark.parametrize(
    "sampler", [GRPOSampler(4), DPSampler(1, 2, world_rank=3, world_size=4), SequentialSampler, made.Faulty("raises"),
                made.make_grpo, functools.partial(GRPOSampler, 3)]
)  # fmt: skip
def test_samplers_travel_as_import_path_and_arguments(sampler: object) -> None:
    spec = spec_of(sampler)
    again = build(spec)

    assert repr(again) == repr(instance_of(sampler))
    assert vars(again) == vars(instance_of(sampler)) | {"_arguments": again._arguments}


def test_what_cannot_be_imported_elsewhere_is_refused() -> None:
    class Local(SequentialSampler):
        pass

    for sampler, named in ((lambda: GRPOSampler(2), "a lambda"), (Local, "Local"), (Local(), "Local")):
        with pytest.raises(SamplerError, match=f"{named}.*cannot travel.*with Ray"):
            spec_of(sampler)
    with pytest.raises(SamplerError, match="use plain arguments"):
        spec_of(made.Faulty(object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("os:system", "no subclass"),
        ("nowhere:X", "cannot import"),
        ("os:nothing", "cannot import"),
        ("", "cannot import"),
    ],
)
def test_only_samplers_are_ever_built(path: str, named: str) -> None:
    with pytest.raises(SamplerError, match=named):
        build(SamplerSpec(path, ["true"], {}))


def test_the_registry_prefers_the_tasks_own_sampler() -> None:
    registry = SamplerRegistry(QueueShape(4, 1, 2))
    registry.register(GRPOSampler(2), "train")

    assert registry.choose("train", "me", None, get_n_samples=False).whole_groups
    assert not registry.choose("reward", "me", None, get_n_samples=False).whole_groups
    assert registry.choose("reward", "me", None, get_n_samples=True).whole_groups
    with pytest.raises(GroupError, match=r"GRPOSampler\(3\) does not fit .* num_n_samples=2"):
        registry.register(GRPOSampler(3))


def test_parameters_of_a_custom_sampler_are_passed_on_without_the_dp_ones() -> None:
    registry = SamplerRegistry(QueueShape(4))
    custom = made.Biased()
    registry.register(custom, "train")
    choice = registry.choose("train", "me", {"parity": 1, "dp_rank": 0, "dp_size": 1, "dp_group_id": 7}, False)

    assert (choice.custom, choice.params, choice.dp) == (custom, {"parity": 1}, DPPlace(0, 1, 7))
