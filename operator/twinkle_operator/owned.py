"""Hydra keys that the spec decides: `run.overrides` may not name them, and `plan` sets these and no others."""

from __future__ import annotations

import re
from dataclasses import dataclass

PARTLY_OWNED = ("run", "queue", "model", "loop", "metrics")
"""Groups of which a part is owned: an override may set one key of them, or choose another file, never pass a dict."""

OVERRIDE = r"^[+~]{0,2}[A-Za-z_][A-Za-z0-9_.@/-]*(=.*)?$"
"""One Hydra override. No blank before the `=`, and no line break."""

WHOLE_GROUP = rf"^~({'|'.join(PARTLY_OWNED)})(@[^=]*)?(=.*)?$|^[+]{{0,2}}({'|'.join(PARTLY_OWNED)})(@[^=]*)?= *[{{].*$"
"""An override that removes an owned group, or replaces many of its keys at once."""


@dataclass(frozen=True, slots=True)
class Owned:
    """Keys with one owner. `x` is that key (or the choice of that group), `x.*` everything below it.

    `by` ends the sentence "... is decided by"; `only_with_model` keys are owned only where spec.model is set.
    """

    keys: tuple[str, ...]
    by: str
    only_with_model: bool = False

    @property
    def pattern(self) -> str:
        """Matches exactly the overrides that name one of the keys; the same in RE2, Rust and Python."""
        keys = (re.sub(r"[.][*]$", "[./].*", key) for key in self.keys)
        return f"^[+~]{{0,2}}({'|'.join(map(_dots, keys))})(@[^=]*)?(=.*)?$"

    @property
    def sentence(self) -> str:
        """What to tell a person who names one."""
        keys = [key for key in self.keys if not key.endswith(".*")] or [key.removesuffix(".*") for key in self.keys]
        return f"{', '.join(keys)}: decided by {self.by}"


def _dots(key: str) -> str:
    return re.sub(r"(?<=\w)[.](?=\w)", "[.]", key)


OWNED = (
    Owned(("experiment",), "run.experiment; set it there"),
    Owned(("run.name", "run.root", "run.folder"), "run.volume and the stack's name; leave it out"),
    Owned(("run.resume",), "the operator, which always resumes; leave it out"),
    Owned(("run.resume_from",), "run.resumeFrom; set it there"),
    Owned(
        ("infra", "infra.mode", "infra.address", "infra.sampler", "infra.sampler.*", "infra.trainer", "infra.trainer.*",
         "infra.reward", "infra.reward.*"),
        "deviceGroups; set deviceType, ranksPerPod and cpusPerRank there",
    ),
    Owned(("mesh", "mesh.*"), "deviceGroups[].mesh; set it there"),
    Owned(("sampler", "sampler.engine"), "deviceGroups[].engine; set it there"),
    Owned(("model.device",), "deviceGroups[].deviceType; set it there"),
    Owned(("model", "model.id"), "spec.model; change it there, or leave spec.model out", only_with_model=True),
    Owned(("queue.storage",), "storage.backend; set it there"),
    Owned(("queue.capacity_bytes",), "storage.capacity; set it there"),
    Owned(("queue.journal",), "the operator, which keeps it on the head; leave it out"),
    Owned(("queue.num_global_batch",), "controller.numGlobalBatch; set it there"),
    Owned(("queue.sampler",), "controller.sampler; set it there"),
    Owned(("queue.task_samplers", "queue.task_samplers.*"), "controller.taskSamplers; set it there"),
    Owned(("loop.prompts_per_step",), "controller.globalBatchSize; set it there"),
    Owned(("loop.samples_per_prompt",), "controller.numNSamples; set it there"),
    Owned(("metrics.port", "metrics.host", "metrics.linger_s"), "the operator, which polls port 9400; leave it out"),
    Owned(("hydra", "hydra.*"), "the operator; leave it out"),
)  # fmt: skip


def owner(override: str, *, with_model: bool) -> Owned | None:
    """Who decides the key that an override names; None for a key that is free."""
    for owned in OWNED:
        if (with_model or not owned.only_with_model) and re.fullmatch(owned.pattern, override):
            return owned
    return None
