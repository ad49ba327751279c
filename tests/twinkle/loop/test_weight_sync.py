"""Weights on their way: who holds what, and what happens when somebody does not."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.runs import trained
from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version, WeightPayload
from twinkle.loop.records import read_rows
from twinkle.loop.weight_sync import Arrival, PolicySampler, Probe, WeightSync

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
V3 = Version(0, 3)


class Deaf:
    """A sampler that takes weights and forgets them."""

    def update_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        """Forget what came."""


class Source:
    """A trainer whose probes differ by ``gaps``."""

    def __init__(self, gaps: list[float]):
        self.gaps = gaps

    def export(self, version: Version) -> WeightPayload:
        return WeightPayload.of(version, TENSORS)

    def probe_gaps(self, probes: list[Probe]) -> list[float]:
        assert len(probes) == len(self.gaps)
        return self.gaps


class Receivers:
    """Replicas, to one of which a bit may come wrong."""

    def __init__(self, policies: list[PolicySampler], *, flip: int | None = None):
        self.policies, self.flip = policies, flip

    def receive(self, payload: WeightPayload) -> list[Arrival]:
        flipped = replace(payload, tensors={**payload.tensors, "a": -payload.tensors["a"]})
        return [
            policy.receive(flipped if index == self.flip else payload) for index, policy in enumerate(self.policies)
        ]

    def probe(self) -> list[Probe]:
        return [Probe([1], [2], [-0.5]) for _ in self.policies]


def synced(gaps: list[float], *, flip: int | None = None) -> tuple[WeightSync, list[PolicySampler]]:
    policies = [PolicySampler(Deaf()) for _ in gaps]  # type: ignore[arg-type]
    return WeightSync(Source(gaps), Receivers(policies, flip=flip), 1e-4, probe_every=3), policies


def test_a_published_version_is_known_at_every_sampler_and_others_are_refused() -> None:
    sync, policies = synced([0.0, 5e-5])
    figures = sync.publish(V3)
    digest = policies[0].fingerprint

    assert [(policy.version, policy.fingerprint) for policy in policies] == [(V3, digest)] * 2
    assert figures.probe_gap == 5e-5
    assert sync.publish(Version(0, 4)).probe_gap is None
    assert 0 < figures.sync_hash_seconds < figures.sync_seconds
    sync.published.check(V3, digest, sample_id=7)
    with pytest.raises(WeightSyncError, match=r"Sample 7 was made by version 0\.5, which this trainer never published"):
        sync.published.check(Version(0, 5), digest, sample_id=7)
    with pytest.raises(WeightSyncError, match="its sampler holds other weights"):
        sync.published.check(V3, "0" * 32, sample_id=7)
    with pytest.raises(WeightSyncError, match="never published"):
        sync.published.check(Version(1, 3), digest, sample_id=7)


def test_weights_that_change_on_the_way_are_noticed_before_they_are_loaded() -> None:
    sync, policies = synced([0.0, 0.0], flip=1)

    with pytest.raises(WeightSyncError, match=r"a was sent as .* nothing was loaded"):
        sync.publish(V3)
    assert policies[1].version is None


@pytest.mark.parametrize("gap", [2e-4, math.nan])
def test_a_sampler_that_answers_the_probe_otherwise_is_named(gap: float) -> None:
    sync, _ = synced([0.0, gap])

    with pytest.raises(WeightSyncError, match=r"Sampler 1 of 2 answers the probe after the sync of version 0\.3"):
        sync.publish(V3)


@pytest.mark.parametrize(
    ("probe_every", "match", "steps"),
    [
        (0, r"of version 0\.2: the sampler's log-probs differ", [1, 2]),
        (1, r"answers the probe after the sync of version 0\.2", [1]),
    ],
)
def test_a_skipped_sync_is_caught_by_the_log_probs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe_every: int, match: str, steps: list[int]
) -> None:
    load = PolicySampler.load

    def skip_one(self: PolicySampler, payload: WeightPayload) -> None:
        if payload.version.step != 2:
            load(self, payload)

    monkeypatch.setattr(PolicySampler, "load", skip_one)

    with pytest.raises(WeightSyncError, match=match):
        trained(tmp_path, "loop.steps=4", "data.held_out_prompts=4", f"loop.probe_every={probe_every}")
    rows = read_rows(tmp_path / "latest" / "metrics.jsonl")
    assert [row["step"] for row in rows] == steps
    assert max(row["logp_diff_max"] for row in rows) <= 1e-5


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_log_probs_agree_after_every_sync(tmp_path: Path, enabled: str) -> None:
    run = trained(tmp_path, "loop.steps=6", "data.held_out_prompts=4", f"model.lora.enabled={enabled}")

    assert all(row["logp_diff_max"] <= 1e-5 for row in read_rows(run / "metrics.jsonl"))
