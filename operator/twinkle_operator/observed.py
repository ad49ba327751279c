"""What the operator has seen of one stack: the whole input of `plan` beside the stack itself and the time."""

from __future__ import annotations

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


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The stack's RayCluster, stripped to what `plan` reads.

    `template` is the annotation TEMPLATE, empty where it is missing: what the spec was made from. `state` is
    KubeRay's .status.state (ready, suspended or empty); `reason` and `message` are those of the first of its conditions
    ReplicaFailure=True and HeadPodReady=False that it has, else empty.
    """

    uid: str
    template: str = ""
    state: str = ""
    reason: str = ""
    message: str = ""
    deleting: bool = False


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod of the stack's RayCluster, stripped to what `plan` reads.

    `group` is the worker group, `head` for the head; `template` the label TEMPLATE: a pod of another spec is about to
    go. `restarts` counts those of container 0. `why` says what keeps it
    from being ready, in KubeRay's or the kubelet's words (Unschedulable, ImagePullBackOff, ...). `lost` is true when it
    ended for a reason that is not its program's: eviction, preemption, a lost node. Pods that ended and pods that are
    being deleted are listed, too.
    """

    name: str
    uid: str
    group: str
    template: str = ""
    ready: bool = False
    deleting: bool = False
    restarts: int = 0
    why: str = ""
    lost: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A RayJob of the stack.

    `attempt` is the label ATTEMPT_LABEL; the rest up to `note` are the annotations of words.py: to which head it is
    bound, what it was made from, and `note`, the counters at its beginning (an opaque text of `plan`'s). `status` is
    jobStatus (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED, empty), `deployment` jobDeploymentStatus; `message` its
    last line; `exit_code` the driver's, when the message tells it (128 + a signal that ended it). `created` is the
    creationTimestamp in seconds.
    """

    name: str
    uid: str
    attempt: int
    head_uid: str
    head_restarts: int
    template: str = ""
    note: str = ""
    status: str = ""
    deployment: str = ""
    message: str = ""
    exit_code: int | None = None
    deleting: bool = False
    created: float = 0.0


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """The newest answer of GET /v1/status of the head that runs now, or why there is none.

    It is asked for while an attempt lives and while one is stopping: `ended < attempts`, or `stopping_since` is there.

    `at` is the wall clock of the answer (or of the failure), in seconds. `is_ready`, `reason` and `text` are the
    queue's own verdict. Without an answer `why` is one word and `message` one sentence, and `progress` what this head
    told last; the word REFUSED (words.py), connection refused, says that nothing listens there: no driver lives on it.
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

    It holds at least what the operator itself has written: a RayJob that was applied and is not in it counts as deleted
    by somebody once the status has named it. `missing` is why KubeRay cannot be used (its CRD is not there or too
    old), empty when it can. `warnings` are warning events on the RayCluster and RayJobs, newest first: (reason,
    message).
    """

    cluster: Cluster | None = None
    pods: tuple[Pod, ...] = ()
    jobs: tuple[Job, ...] = ()
    poll: Poll | None = None
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    missing: str = ""
