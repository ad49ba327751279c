"""Weights on their way from the trainer to the samplers: versioned, fingerprinted, checked on arrival."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from twinkle.errors import WeightSyncError
from twinkle.sampler.base import Sampler

POLICY_ADAPTER = "policy"


class Version(NamedTuple):
    """Which weights: ``lineage`` is one uninterrupted history of them, ``step`` counts its optimizer steps."""

    lineage: int
    step: int

    def __str__(self) -> str:
        return f"{self.lineage}.{self.step}"


@dataclass(frozen=True)
class WeightPayload:
    """What the trainer publishes after a step.

    Attributes:
        version: the weights' version.
        tensors: name -> tensor; the adapter's alone when ``adapter_config`` is there, else the whole model's.
        adapter_config: the PEFT configuration of an adapter, or None for full weights.
    """

    version: Version
    tensors: Mapping[str, torch.Tensor]
    adapter_config: Mapping[str, Any] | None = None


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest of names, types, shapes and bytes in the order of the names: 32 hexadecimal digits (BLAKE2b-128)."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(
            tensor.view(torch.uint8).numpy().data if tensor.ndim else tensor.reshape(1).view(torch.uint8).numpy().data
        )
    return digest.hexdigest()


class PolicySampler:
    """A sampler that holds the policy: it knows the version and fingerprint of the weights that it really loaded."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.version: Version | None = None
        self.fingerprint = ""
        self.adapter_name = ""

    def receive(self, payload: WeightPayload) -> str:
        """Load ``payload`` and return its fingerprint, computed here from what arrived and before it is loaded."""
        digest = fingerprint(payload.tensors)
        self.load(payload)
        self.version, self.fingerprint = payload.version, digest
        return digest

    def load(self, payload: WeightPayload) -> None:
        """Copy the payload's tensors into the sampler's own weights."""
        if payload.adapter_config is None:
            self.sampler.update_weights(payload.tensors)
            return
        self.sampler.add_adapter_to_model(POLICY_ADAPTER, payload.adapter_config, state_dict=payload.tensors)
        self.adapter_name = POLICY_ADAPTER


class PublishedVersions:
    """The trainer's memory of what it published: a sample of any other weights is refused."""

    def __init__(self) -> None:
        self._fingerprints: dict[Version, str] = {}

    def publish(self, payload: WeightPayload, receiver: PolicySampler) -> None:
        """Hand ``payload`` to the receiver and check that it holds the same bytes.

        Raises:
            WeightSyncError: the receiver's fingerprint is not the sender's.
        """
        ours = fingerprint(payload.tensors)
        theirs = receiver.receive(payload)
        if ours != theirs:
            raise WeightSyncError(
                f"The weights of version {payload.version} changed on their way to the sampler: "
                f"sent {ours}, arrived {theirs}."
            )
        self._fingerprints[payload.version] = ours

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
