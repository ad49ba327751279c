"""What the operator has seen of one stack: the whole input of `plan` beside the stack itself and the time."""

from __future__ import annotations

from typing import Any

import msgspec

from twinkle_operator.spec import Spec
from twinkle_operator.state import Progress, Queue, Status


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """A TrainingStack as the API server has it.

    `spec_text` is why the spec cannot be decoded, empty when it can: `spec` is None then and no child is touched.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    created: float = 0.0
    deleting: bool = False
    spec: Spec | None = None
    spec_text: str = ""
    status: Status = Status()


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod of the stack's RayCluster, stripped to what `plan` reads.

    `group` is the worker group, `head` for the head. `why` says what keeps it from being ready, in KubeRay's or the
    kubelet's words (Unschedulable, ImagePullBackOff, ...). `lost` is true when it ended for a reason that is not its
    program's: eviction, preemption, a lost node.
    """

    name: str
    uid: str
    group: str
    ready: bool = False
    deleting: bool = False
    restarts: int = 0
    why: str = ""
    lost: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A RayJob of the stack. `status` is jobStatus (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED, empty), `deployment`
    jobDeploymentStatus; `exit_code` the driver's when KubeRay or the submitter pod tells it."""

    name: str
    attempt: int
    head_uid: str
    head_restarts: int
    status: str = ""
    deployment: str = ""
    message: str = ""
    exit_code: int | None = None
    deleting: bool = False
    created: float = 0.0
    ended: float | None = None


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """The newest answer of GET /v1/status, or why there is none (`why`: one word; `message`: one sentence).

    `at` is the wall clock of the answer, in seconds. `is_ready` and `text` are the queue's own verdict.
    """

    at: float
    queue: Queue | None = None
    progress: Progress | None = None
    is_ready: bool = False
    reason: str = ""
    text: str = ""
    why: str = ""
    message: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A child that the API server refused for what is in it; not sent again until the stack's generation changes."""

    kind: str
    name: str
    generation: int
    reason: str
    message: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """All children of one stack as last seen.

    `children` holds the objects under our field manager, by (kind, name), stripped to what `plan` compares. `missing`
    is why KubeRay cannot be used (its CRD is not there or too old), empty when it can. `warnings` are the newest
    warning events on the RayCluster and RayJob: (reason, message).
    """

    children: dict[tuple[str, str], dict[str, Any]] = msgspec.field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    jobs: tuple[Job, ...] = ()
    poll: Poll | None = None
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    missing: str = ""
