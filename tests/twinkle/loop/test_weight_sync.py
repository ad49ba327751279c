"""Weights on their way: who holds what, and what happens when somebody does not."""

from pathlib import Path

import pytest
import torch

from tests.runs import trained
from twinkle.errors import WeightSyncError
from twinkle.loop.records import read_rows
from twinkle.loop.weight_sync import PolicySampler, PublishedVersions, Version, WeightPayload, fingerprint

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.tensor(3)}


class Deaf:
    """A sampler that takes weights and changes them on the way."""

    def update_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        """Forget what came."""


def test_the_fingerprint_depends_on_names_types_shapes_and_bytes_alone() -> None:
    same = {name: TENSORS[name].clone() for name in reversed(TENSORS)}
    others = [
        {**TENSORS, "a": TENSORS["a"].reshape(3, 2)},
        {**TENSORS, "a": TENSORS["a"].nextafter(torch.tensor(9.0))},
        {**TENSORS, "b": TENSORS["b"].float()},
        {"A": TENSORS["a"], "b": TENSORS["b"], "c": TENSORS["c"]},
        {"a": TENSORS["a"], "b": TENSORS["b"]},
    ]

    assert fingerprint(same) == fingerprint(TENSORS)
    assert len({fingerprint(other) for other in others} | {fingerprint(TENSORS)}) == 6


def test_the_fingerprint_does_not_care_how_a_tensor_lies_in_memory() -> None:
    transposed = {"a": torch.arange(6.0).view(3, 2).t().contiguous().t()}

    assert fingerprint(transposed) == fingerprint({"a": transposed["a"].contiguous()})


def test_a_published_version_is_known_and_others_are_refused() -> None:
    published, sampler = PublishedVersions(), PolicySampler(Deaf())  # type: ignore[arg-type]
    payload = WeightPayload(Version(0, 3), TENSORS)
    published.publish(payload, sampler)

    published.check(Version(0, 3), sampler.fingerprint, sample_id=7)
    with pytest.raises(WeightSyncError, match=r"Sample 7 was made by version 0\.4, which this trainer never published"):
        published.check(Version(0, 4), sampler.fingerprint, sample_id=7)
    with pytest.raises(WeightSyncError, match="its sampler holds other weights"):
        published.check(Version(0, 3), "0" * 32, sample_id=7)
    with pytest.raises(WeightSyncError, match="never published"):
        published.check(Version(1, 3), sampler.fingerprint, sample_id=7)


class Bitrot(PolicySampler):
    """A receiver to which one bit comes wrong."""

    def receive(self, payload: WeightPayload) -> str:
        """As PolicySampler, after a flip."""
        flipped = {**payload.tensors, "a": -payload.tensors["a"]}
        return super().receive(WeightPayload(payload.version, flipped))


def test_weights_that_change_on_the_way_are_noticed() -> None:
    with pytest.raises(WeightSyncError, match="changed on their way"):
        PublishedVersions().publish(WeightPayload(Version(0, 0), TENSORS), Bitrot(Deaf()))  # type: ignore[arg-type]


def test_a_skipped_sync_is_caught_by_the_log_probs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = PolicySampler.load

    def skip_one(self: PolicySampler, payload: WeightPayload) -> None:
        if payload.version.step != 2:
            load(self, payload)

    monkeypatch.setattr(PolicySampler, "load", skip_one)

    with pytest.raises(WeightSyncError, match=r"of version 0\.2: the sampler's log-probs differ"):
        trained(tmp_path, "loop.steps=4", "data.held_out_prompts=4")
    rows = read_rows(tmp_path / "latest" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert max(row["logp_diff_max"] for row in rows) <= 1e-5


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_log_probs_agree_after_every_sync(tmp_path: Path, enabled: str) -> None:
    run = trained(tmp_path, "loop.steps=6", "data.held_out_prompts=4", f"model.lora.enabled={enabled}")

    assert all(row["logp_diff_max"] <= 1e-5 for row in read_rows(run / "metrics.jsonl"))
