"""Weights on their way from the trainer to every sampler: checked on arrival, and by a prompt that both answer."""

import math
import time
from dataclasses import dataclass
from typing import Protocol

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version, WeightPayload
from twinkle.sampler.base import Sampler

POLICY_ADAPTER = "policy"


@dataclass(frozen=True)
class Arrival:
    """What a sampler says of weights that it has checked and loaded; ``hash_seconds`` went into the check."""

    fingerprint: str
    hash_seconds: float


@dataclass(frozen=True)
class Probe:
    """What a sampler answers to the probe prompt: token ids, and their log-probs as it drew them."""

    prompt_ids: list[int]
    tokens: list[int]
    logprobs: list[float]


class Receivers(Protocol):
    """The samplers that hold the policy: one object, one on a device group that stands for all its replicas, or a board
    that samplers look at by themselves."""

    def receive(self, payload: WeightPayload) -> list[Arrival]:
        """Check the payload, then load it, at every replica; none arrives at once where samplers fetch it."""

    def probe(self) -> list[Probe]:
        """The answer of every replica to the probe prompt; none where they are asked by nobody."""


class WeightSource(Protocol):
    """The trainer: one object, or one on a device group."""

    def export(self, version: Version) -> WeightPayload:
        """The weights as they are now: an adapter, or a state dict."""

    def probe_gaps(self, probes: list[Probe]) -> list[float]:
        """Largest |sampler - trainer| log-prob of each probe, in nats, under the weights as they are now."""


@dataclass(frozen=True)
class SyncFigures:
    """How a sync went.

    Attributes:
        sync_seconds: from the trainer's weights to the last sampler that holds them.
        sync_hash_seconds: the part of it that digests took, at the sender and at the slowest receiver.
        probe_seconds: time for the probe, after the sync.
        probe_gap: largest difference of a log-prob of the probe, in nats; None without one.
    """

    sync_seconds: float
    sync_hash_seconds: float
    probe_seconds: float
    probe_gap: float | None


class PolicySampler:
    """A sampler that holds the policy: it knows the version and fingerprint of the weights that it really loaded."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.version: Version | None = None
        self.fingerprint = ""
        self.adapter_name = ""

    def receive(self, payload: WeightPayload) -> Arrival:
        """Check what arrived, and load it. A WeightSyncError of the check leaves the old weights in place."""
        began = time.perf_counter()
        payload.verify()
        seconds = time.perf_counter() - began
        self.load(payload)
        self.version, self.fingerprint = payload.version, payload.fingerprint
        return Arrival(self.fingerprint, seconds)

    def load(self, payload: WeightPayload) -> None:
        """Copy the payload's tensors into the sampler's own weights."""
        if payload.adapter_config is None:
            self.sampler.update_weights(payload.tensors)
            return
        self.sampler.add_adapter_to_model(POLICY_ADAPTER, payload.adapter_config, state_dict=payload.tensors)
        self.adapter_name = POLICY_ADAPTER


class PublishedVersions:
    """The memory of what was published: a sample of any other weights is refused."""

    def __init__(self) -> None:
        self._fingerprints: dict[Version, str] = {}

    def remember(self, version: Version, fingerprint: str) -> None:
        """These weights are the samplers' now."""
        self._fingerprints[version] = fingerprint

    def check(self, version: Version, digest: str, *, sample_id: int) -> None:
        """Raise WeightSyncError unless ``digest`` was published as ``version``."""
        known = self._fingerprints.get(version)
        if known is None:
            raise WeightSyncError(
                f"Sample {sample_id} was made by version {version}, which this trainer never published (newest: "
                f"{max(self._fingerprints, default=None)}). Is an older run's sampler still attached to this queue?"
            )
        if known != digest:
            raise WeightSyncError(
                f"Sample {sample_id} of version {version} bears the fingerprint {digest}, but {known} was published: "
                "its sampler holds other weights."
            )


class WeightSync:
    """Publishes the trainer's weights to all samplers: in this process as tensors, on device groups through Ray's
    object store.

    Attributes:
        source: whose weights these are; an adapter or all of a model.
        receivers: the samplers.
        tolerance: largest gap of the probe's log-probs, in nats, that still counts as the same weights.
        probe_every: the probe follows the syncs of every so many steps; 0: of none.
    """

    def __init__(self, source: WeightSource, receivers: Receivers, tolerance: float, *, probe_every: int = 1):
        self.source, self.receivers, self.tolerance, self.probe_every = source, receivers, tolerance, probe_every
        self.published = PublishedVersions()

    def publish(self, version: Version) -> SyncFigures:
        """Give every sampler the weights as they are now, under this version, and let all of them answer the probe when
        it is due.

        Raises:
            WeightSyncError: something else arrived than was sent, or a sampler answers the probe as other weights
                would.
        """
        began = time.perf_counter()
        payload = self.source.export(version)
        arrivals = self.receivers.receive(payload)
        for arrival in arrivals:
            if arrival.fingerprint != payload.fingerprint:
                raise WeightSyncError(
                    f"A sampler holds {arrival.fingerprint} as version {version}, but {payload.fingerprint} was sent."
                )
        self.published.remember(version, payload.fingerprint)
        synced = time.perf_counter()
        due = self.probe_every > 0 and version.step % self.probe_every == 0
        gap = self._probe(version) if due else None
        hashed = payload.hash_seconds + max((arrival.hash_seconds for arrival in arrivals), default=0.0)
        return SyncFigures(synced - began, hashed, time.perf_counter() - synced, gap)

    def _probe(self, version: Version) -> float | None:
        probes = self.receivers.probe()
        if not probes:
            return None
        gaps = self.source.probe_gaps(probes)
        worst = max(range(len(gaps)), key=lambda index: badness(gaps[index]))
        if not gaps[worst] <= self.tolerance:
            raise WeightSyncError(
                f"Sampler {worst} of {len(gaps)} answers the probe after the sync of version {version} with log-probs "
                f"that differ from the trainer's by {gaps[worst]:.2g}, more than loop.logp_tolerance="
                f"{self.tolerance:g}: it does not hold the weights that it says it does."
            )
        return gaps[worst]


def badness(gap: float) -> float:
    """The gap itself; a NaN is the worst of all."""
    return math.inf if math.isnan(gap) else gap
