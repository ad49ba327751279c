"""What the operator says: the status of a TrainingStack."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from twinkle_operator.spec import Part, Text
from twinkle_operator.words import MOST_GROUPS

ConditionType = Literal[
    "Ready", "ClusterReady", "SamplersReady", "QueueReady", "Durable", "Suspended", "Complete", "Failed"
]
Answer = Literal["True", "False", "Unknown"]


class Condition(Part, frozen=True, omit_defaults=False):
    """One condition, as metav1.Condition."""

    type: Annotated[ConditionType, Meta(description="What the condition speaks of; one of each.")]
    status: Annotated[Answer, Meta(description="True, False, or Unknown when nobody can tell now.")]
    observed_generation: Annotated[int, Meta(ge=0, description="Generation of the spec that it speaks of.")]
    last_transition_time: Annotated[
        str, Meta(description="RFC 3339; when the status last changed.", extra_json_schema={"format": "date-time"})
    ]
    reason: Annotated[str, Meta(max_length=1024, description="One word in CamelCase.")]
    message: Annotated[str, Meta(max_length=32768, description="One sentence for a person.")]


class Queue(Part, frozen=True):
    """The queue in one line."""

    task: Annotated[Text | None, Meta(description="The last task of the pipeline that has asked for rows.")] = None
    ready: Annotated[int, Meta(ge=0, description="Rows that it could have now.")] = 0
    required: Annotated[int, Meta(ge=0, description="Rows that it asked for.")] = 0
    reason: Annotated[Text | None, Meta(description="Why rows are missing, in one word; left out when none is.")] = None
    summary: Annotated[Text, Meta(description="ready/required.")] = "0/0"


class Progress(Part, frozen=True):
    """Where training stands."""

    step: Annotated[int | None, Meta(description="Optimizer steps done.")] = None
    reward: Annotated[Text | None, Meta(description="Mean reward of the newest step, four digits.")] = None
    version: Annotated[Text | None, Meta(description="Newest weights, lineage.step.")] = None
    checkpoint_step: Annotated[
        int | None, Meta(description="Step of the newest checkpoint; without run.volume it goes with the head.")
    ] = None


class GroupState(Part, frozen=True, omit_defaults=False):
    """Pods of one device group."""

    name: Annotated[Text, Meta(description="Of the device group.")]
    desired: Annotated[int, Meta(ge=0, description="Pods wanted.")] = 0
    ready: Annotated[int, Meta(ge=0, description="Pods ready.")] = 0


class Status(Part, frozen=True):
    """Status of a TrainingStack; written by the operator alone."""

    observed_generation: Annotated[int, Meta(description="Generation of the spec that this status speaks of.")] = 0
    conditions: Annotated[
        list[Condition], Meta(max_length=16, description="The stack in yes and no, each with a reason and a sentence.")
    ] = msgspec.field(default_factory=list)
    queue: Annotated[Queue | None, Meta(description="The queue as last seen; left out before it answers.")] = None
    progress: Annotated[Progress | None, Meta(description="Training as last seen.")] = None
    device_groups: Annotated[
        list[GroupState], Meta(max_length=MOST_GROUPS, description="Pods of each device group.")
    ] = msgspec.field(default_factory=list)
    samplers: Annotated[Text, Meta(description="Sampler pods ready / wanted.")] = "0/0"
    ray_cluster: Annotated[Text | None, Meta(description="The RayCluster, while there is one.")] = None
    ray_job: Annotated[Text | None, Meta(description="The RayJob of the newest attempt.")] = None
    attempts: Annotated[int, Meta(ge=0, description="RayJobs begun.")] = 0
    failures: Annotated[int, Meta(ge=0, description="Entrypoints that failed; run.backoffLimit bounds them.")] = 0
    restarts: Annotated[int, Meta(ge=0, description="Attempts ended by lost pods, suspension or a new template.")] = 0
    ended: Annotated[int, Meta(ge=0, description="Attempts that are over; fewer than attempts while one runs.")] = 0
    fruitless: Annotated[int, Meta(ge=0, description="Restarts since the newest checkpoint; three end the stack.")] = 0
    checkpoint_at_restart: Annotated[
        int | None,
        Meta(
            description="Step of the newest checkpoint seen until the last attempt ended or was told to stop; the next "
            "attempt tells of one saved later, in progress."
        ),
    ] = None
    active_since: Annotated[
        Text | None, Meta(description="RFC 3339; since when activeDeadlineSeconds counts on; left out while suspended.")
    ] = None
    active_seconds: Annotated[int, Meta(ge=0, description="Seconds that it had counted by then.")] = 0
    stopping_since: Annotated[
        Text | None, Meta(description="RFC 3339; when the driver was told to save a checkpoint and stop.")
    ] = None
    run_folder: Annotated[Text | None, Meta(description="Folder of the run, on the head.")] = None
