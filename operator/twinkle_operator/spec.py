"""What a person writes: the spec of a TrainingStack, as the CRD, the reference page and the plan read it.

`rules` of a class and of `extra` are the CEL rules that the API server checks; whatever it took can be decoded.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from twinkle_operator import rules
from twinkle_operator.words import MOST_GROUPS, RAY_VERSION

Axis = Annotated[int, Meta(ge=1, le=1024)]
Text = Annotated[str, Meta(max_length=1024)]
ObjectName = Annotated[str, Meta(max_length=253, extra={"rules": rules.OBJECT_NAME})]
Folder = Annotated[str, Meta(max_length=253, extra={"rules": rules.FOLDER})]
Image = Annotated[str, Meta(max_length=512, extra={"rules": rules.IMAGE})]
QueueSampler = Annotated[str, Meta(max_length=253, extra={"rules": rules.QUEUE_SAMPLER})]
Override = Annotated[str, Meta(max_length=1024, extra={"rules": rules.OVERRIDE})]
PodTemplate = Annotated[dict[str, Any], Meta(extra={"is_pod_template": True})]
"""Any PodTemplateSpec. What is declared of it in the CRD is what rules read: the containers' name, image, resources."""
Role = Literal["sampler", "trainer", "reward"]


class Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of everything in the resource: Python's names here, camelCase in YAML."""


class ModelCache(Part, frozen=True, kw_only=True):
    """A claim that holds models, so that no pod fetches one."""

    claim_name: Annotated[
        ObjectName, Meta(description="PersistentVolumeClaim with model folders; mounted read-only in every pod.")
    ]
    path: Annotated[Folder, Meta(description="Where it is mounted; hubs look for their caches below it.")] = "/models"


class Controller(Part, frozen=True):
    """The queue: how many rows a step has, and who hands them out."""

    global_batch_size: Annotated[
        int, Meta(ge=1, le=2**20, description="Prompts of one step. A step has globalBatchSize * numNSamples rows.")
    ] = 8
    num_global_batch: Annotated[
        int, Meta(ge=1, le=1024, description="Steps that the queue holds at once; producers beyond that wait.")
    ] = 1
    num_n_samples: Annotated[
        int, Meta(ge=2, le=4096, description="Responses per prompt, compared with each other: one group.")
    ] = 8
    sampler: Annotated[
        QueueSampler,
        Meta(description="Which rows a task without an entry in taskSamplers gets: a class name or module:Class."),
    ] = "SequentialSampler"
    task_samplers: Annotated[
        dict[Annotated[str, Meta(max_length=64)], QueueSampler],
        Meta(
            max_length=16,
            description="The same for one task, by its name: rollout, reward or train. "
            "Training compares the samples of a prompt, so train needs whole groups: GRPOSampler.",
            extra={"rules": rules.TASKS},
        ),
    ] = msgspec.field(default_factory=lambda: {"train": "GRPOSampler"})


class Storage(Part, frozen=True):
    """Where the values of rows lie."""

    backend: Annotated[
        Literal["ray", "memory"],
        Meta(
            description="ray: in Ray's object store, over all pods. memory: in the controller's process; "
            "for small values. Cannot change.",
            extra={"rules": rules.BACKEND},
        ),
    ] = "ray"
    capacity: Annotated[
        Annotated[str, Meta(max_length=64, extra={"rules": rules.QUANTITY})] | None,
        Meta(
            description="Bytes of all values at which producers wait, as a quantity (8Gi). Left out: "
            "numGlobalBatch alone bounds them. At least 16Mi."
        ),
    ] = None


class Head(Part, frozen=True):
    """The head pod: the driver, the queue controller and Ray's own services. It trains nothing."""

    pod_template: Annotated[
        PodTemplate | None,
        Meta(description="A PodTemplateSpec; container 0 is Ray's. What the operator needs is merged in."),
    ] = None


class Mesh(Part, frozen=True):
    """Ranks along each axis; their product is the number of ranks."""

    dp: Annotated[Axis, Meta(description="Data-parallel ranks of the trainer; replicas of a sampler.")] = 1
    fsdp: Annotated[Axis, Meta(description="Ranks that share the weights of one trainer replica.")] = 1
    tp: Annotated[Axis, Meta(description="Tensor-parallel ranks of one replica.")] = 1
    pp: Annotated[Axis, Meta(description="Pipeline-parallel ranks of one replica.")] = 1
    cp: Annotated[Axis, Meta(description="Context-parallel ranks of one trainer replica.")] = 1
    ep: Annotated[Axis, Meta(description="Expert-parallel ranks of one trainer replica.")] = 1


class Group(Part, frozen=True, kw_only=True):
    """One device group: ranks of one kind, in pods of one worker group."""

    rules: ClassVar = rules.GROUP

    name: Annotated[
        str,
        Meta(
            max_length=253,
            description="Names the worker group and Ray's placement group: at most 30 characters, not `head`.",
            extra={"rules": rules.GROUP_NAME},
        ),
    ]
    role: Annotated[
        Role, Meta(description="sampler: answers prompts. trainer: exactly one. reward: scores responses, at most one.")
    ]
    engine: Annotated[
        Literal["torch", "vllm"] | None,
        Meta(description="What answers prompts; for role sampler, and only there."),
    ] = None
    device_type: Annotated[
        Literal["cpu", "cuda", "npu"],
        Meta(description="What a rank runs on; cuda asks for one nvidia.com/gpu per rank."),
    ] = "cpu"
    mesh: Annotated[Mesh, Meta(description="Ranks of the group: at most 4096. Changes only while suspended.")] = Mesh()
    ranks_per_pod: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="Ranks in one pod. Default: tp*pp for samplers, 1 for others. One replica never spans pods.",
        ),
    ] = None
    cpus_per_rank: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="CPUs that Ray's schedule counts for each rank; independent of the pod's requests.",
        ),
    ] = 1
    pod_template: Annotated[
        PodTemplate | None,
        Meta(description="A PodTemplateSpec; container 0 is Ray's. What the operator needs is merged in."),
    ] = None


class Volume(Part, frozen=True, kw_only=True):
    """Where run folders lie."""

    claim_name: Annotated[
        ObjectName,
        Meta(
            description="PersistentVolumeClaim that the head mounts; ReadWriteOnce is enough. Changes only while "
            "suspended: what lies on the one before stays there, and the run begins anew."
        ),
    ]
    path: Annotated[
        Folder, Meta(description="Where it is mounted. The run folder is <path>/<namespace>/<stack>-<uid>.")
    ] = "/runs"
    shared: Annotated[
        bool,
        Meta(description="Mount it in trainer pods, too (ReadWriteMany), for checkpoints that ranks write in parts."),
    ] = False


class Run(Part, frozen=True, kw_only=True):
    """What is trained, and for how long it is tried."""

    rules: ClassVar = rules.RUN

    experiment: Annotated[
        str,
        Meta(
            max_length=253,
            description="Hydra experiment, as in `twinkle-train experiment=NAME`.",
            extra={"rules": rules.EXPERIMENT},
        ),
    ]
    overrides: Annotated[
        list[Override],
        Meta(max_length=128, description="Hydra overrides, in order. Keys that this resource owns are refused."),
    ] = msgspec.field(default_factory=list)
    volume: Annotated[
        Volume | None,
        Meta(
            description="Left out: an emptyDir of the head, and Durable=False: a lost head, suspend and a change of "
            "the pods lose the run, which begins anew."
        ),
    ] = None
    resume_from: Annotated[
        Text | None,
        Meta(description="Run folder below volume.path whose newest checkpoint a new run begins with; absolute."),
    ] = None
    backoff_limit: Annotated[
        int,
        Meta(ge=0, le=100, description="Entrypoints that may fail before the stack is Failed; lost pods do not count."),
    ] = 2
    active_deadline_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="Seconds from the first attempt, suspension left out, to Failed."),
    ] = None
    ttl_seconds_after_finished: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="Seconds that the RayCluster lives after Complete or Failed.")
    ] = 60


class NetworkPolicy(Part, frozen=True):
    """Who reaches the pods of the stack: only its own, KubeRay and the operator, whatever is written here."""

    egress: Annotated[
        Annotated[list[dict[str, Any]], Meta(max_length=64)] | None,
        Meta(
            description="Egress rules of networking.k8s.io/v1 for all pods of the stack. Left out: egress is free.",
        ),
    ] = None


class Spec(Part, frozen=True, kw_only=True):
    """Spec of a TrainingStack."""

    rules: ClassVar = rules.SPEC

    suspend: Annotated[
        bool,
        Meta(
            description="true: save a checkpoint and give every pod back; false: go on from it. Without run.volume the "
            "run begins anew: its folder goes with the head pod."
        ),
    ] = False
    image: Annotated[
        Image | None, Meta(description="Image of every pod; a container 0 with an image of its own keeps it.")
    ] = None
    ray_version: Annotated[
        str,
        Meta(
            max_length=64,
            description="Ray in the image; must be the operator's for the driver to speak with it.",
            extra={"rules": rules.RAY_VERSION},
        ),
    ] = RAY_VERSION
    service_account_name: Annotated[
        ObjectName | None,
        Meta(description="Of every pod that does not name one; its token is not mounted unless asked for."),
    ] = None
    model: Annotated[
        Annotated[str, Meta(max_length=512, extra={"rules": rules.MODEL})] | None,
        Meta(description="Model to train: hf://org/name, ms://org/name or a path. Left out: the experiment's."),
    ] = None
    model_cache: Annotated[ModelCache | None, Meta(description="Claim with models, mounted read-only everywhere.")] = (
        None
    )
    pod_defaults: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Merged under each podTemplate: env, envFrom and imagePullPolicy of container 0; "
            "imagePullSecrets, priorityClassName, nodeSelector, tolerations and other fields of a PodSpec."
        ),
    ] = None
    controller: Annotated[Controller, Meta(description="The queue between samplers and trainer.")] = Controller()
    storage: Annotated[Storage, Meta(description="Where the queue keeps values.")] = Storage()
    head: Annotated[Head, Meta(description="The head pod.")] = Head()
    device_groups: Annotated[
        list[Group],
        Meta(
            min_length=2,
            max_length=MOST_GROUPS,
            description="Exactly one trainer, at least one sampler, at most one reward.",
        ),
    ]
    run: Annotated[Run, Meta(description="What is trained.")]
    network_policy: Annotated[NetworkPolicy, Meta(description="Who reaches the pods.")] = NetworkPolicy()
