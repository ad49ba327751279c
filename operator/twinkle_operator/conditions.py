"""What a person reads: the eight conditions of a stack, each with its reasons.

| condition     | True                               | False, with the reason                                      |
|---------------|------------------------------------|-------------------------------------------------------------|
| Ready         | Running: driver and pods are there | the stage: Provisioning, Unschedulable, Suspended, ...      |
| ClusterReady  | PodsReady                          | NoCluster, HeadNotReady, PodsNotReady, what keeps the pods  |
| SamplersReady | PodsReady                          | PodsNotReady                                                |
| QueueReady    | RowsReady: the next batch is there | the queue's (MissingField, ...); NotRunning; Unknown: mute  |
| Durable       | VolumeMounted                      | NoVolume                                                    |
| Suspended     | Suspended                          | Suspending, NotSuspended                                    |
| Complete      | Completed                          | NotFinished, or why the stack Failed                        |
| Failed        | BackoffLimitExceeded, NoProgress,  | NotFinished, Completed                                      |
|               | DeadlineExceeded, InvalidRun       |                                                             |
"""

from __future__ import annotations

from msgspec.structs import replace

from twinkle_operator import clock, groups
from twinkle_operator.groups import Said
from twinkle_operator.life import Life
from twinkle_operator.overrides import run_folder
from twinkle_operator.spec import Spec
from twinkle_operator.state import Answer, Condition, ConditionType, GroupState, Queue, Status
from twinkle_operator.text import one_line

MOST = 1024
"""Characters of a message."""

Verdict = tuple[Answer, Said]


def status_of(life: Life) -> Status:
    """The whole status, from what was decided."""
    stack, spec, observed, status = life.stack, life.spec, life.observed, life.status
    states = groups.states(spec, observed)
    samplers = [state for state, group in zip(states, spec.device_groups, strict=True) if group.role == "sampler"]
    made: dict[ConditionType, Verdict] = {
        "Ready": _ready(life),
        "ClusterReady": _cluster(life),
        "SamplersReady": _samplers(samplers),
        "QueueReady": _queue(life),
        "Durable": _durable(spec),
        "Suspended": _suspended(life),
        "Complete": _ended(life, "Complete"),
        "Failed": _ended(life, "Failed"),
    }
    return replace(
        status,
        observed_generation=stack.generation,
        conditions=updated(stack.status.conditions, made, stack.generation, life.now),
        queue=_rows(life),
        device_groups=states,
        samplers=f"{sum(state.ready for state in samplers)}/{sum(state.desired for state in samplers)}",
        ray_cluster=stack.name if observed.cluster is not None else None,
        run_folder=run_folder(spec, namespace=stack.namespace, name=stack.name, uid=stack.uid),
    )


def only_ready(status: Status, said: Said, generation: int, now: float) -> Status:
    """A status in which only Ready changes: the spec cannot be read, so nothing else can be said."""
    conditions = updated(status.conditions, {"Ready": ("False", said)}, generation, now)
    return replace(status, observed_generation=generation, conditions=conditions)


def updated(
    before: list[Condition], made: dict[ConditionType, Verdict], generation: int, now: float
) -> list[Condition]:
    """The conditions before, with those that were made anew; the time changes with the status alone."""
    old = {each.type: each for each in before}
    for kind, (status, said) in made.items():
        last = old.get(kind)
        same = last is not None and last.status == status
        old[kind] = Condition(
            type=kind,
            status=status,
            observed_generation=generation,
            last_transition_time=clock.kept(last.last_transition_time if last and same else None, now),
            reason=said.reason,
            message=one_line(said.message, MOST),
        )
    return list(old.values())


def _ready(life: Life) -> Verdict:
    return ("True" if life.running and life.stage.reason == "Running" else "False"), life.stage


def _cluster(life: Life) -> Verdict:
    cluster = life.observed.cluster
    if cluster is None:
        return "False", Said("NoCluster", "there is no RayCluster")
    if cluster.deleting:
        return "False", Said("NoCluster", "the RayCluster is being deleted")
    waits = groups.unready(life.spec, life.observed, cluster)
    return ("True", Said("PodsReady", "the head and all groups are ready")) if waits is None else ("False", waits)


def _samplers(states: list[GroupState]) -> Verdict:
    ready, desired = sum(state.ready for state in states), sum(state.desired for state in states)
    said = f"{ready} of {desired} sampler pods ready"
    if states and all(state.ready >= state.desired for state in states):
        return "True", Said("PodsReady", said)
    return "False", Said("PodsNotReady", said)


def _queue(life: Life) -> Verdict:
    poll = life.observed.poll
    if not life.running:
        return "False", Said("NotRunning", "no driver runs, so there is no queue")
    if poll is None:
        return "Unknown", Said("NotPolled", "the queue has not been asked yet")
    if poll.queue is None:
        return "Unknown", Said(groups.word(poll.why, "NoAnswer"), poll.message or "the queue gave no answer")
    if poll.is_ready:
        return "True", Said("RowsReady", poll.text or f"{poll.queue.summary} rows ready")
    return "False", Said(groups.word(poll.reason, "NotReady"), poll.text or f"{poll.queue.summary} rows ready")


def _rows(life: Life) -> Queue | None:
    """While the driver does not answer, what it said last; without a driver nothing."""
    if not life.running:
        return None
    poll = life.observed.poll
    return poll.queue if poll is not None and poll.queue is not None else life.stack.status.queue


def _durable(spec: Spec) -> Verdict:
    if spec.run.volume is None:
        return "False", Said("NoVolume", "the run lies on an emptyDir and is lost with the head pod: set run.volume")
    return "True", Said("VolumeMounted", f"the run lies on claim {spec.run.volume.claim_name}")


def _suspended(life: Life) -> Verdict:
    if not life.spec.suspend:
        return "False", Said("NotSuspended", "spec.suspend is false")
    if life.observed.cluster is None and not life.observed.pods:
        return "True", Said("Suspended", "no pods")
    return "False", Said("Suspending", "pods are left")


def _ended(life: Life, kind: ConditionType) -> Verdict:
    if life.outcome is None:
        return "False", Said("NotFinished", "the run is not over")
    outcome, said = life.outcome
    return ("True" if outcome == kind else "False"), said
