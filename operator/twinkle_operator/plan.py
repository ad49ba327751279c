"""`plan`: what Kubernetes should hold for a stack, from what it holds now. Pure; everything else executes it."""

from __future__ import annotations

import math

import msgspec

from twinkle_operator import clock, conditions, render
from twinkle_operator.beyond_cel import problems
from twinkle_operator.events import Event, events
from twinkle_operator.groups import Said, word
from twinkle_operator.life import Life
from twinkle_operator.merging import Object
from twinkle_operator.observed import Observed, Stack
from twinkle_operator.settings import Settings
from twinkle_operator.spec import Spec
from twinkle_operator.state import Status

SOONEST_S = 1.0


class Deletion(msgspec.Struct, frozen=True):
    """A child to delete, if it still is the object of that uid."""

    kind: str
    name: str
    uid: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, in this order, and when to plan again without news.

    1. `rehearsal`: manifests to send with dryRun=All. If one is refused for what is in it, nothing below is done: the
       refusal is observed, and planned again. Their turn as children comes only after the driver has saved and stopped.
    2. `children`: manifests to apply, in this order; those that are as they should be need not be sent. A child that
       is not listed is left alone.
    3. `deletions`, with the uid as precondition.
    4. `status`, if it differs from the stack's; then `events`.

    `resync_after` counts seconds; None: only news matter.
    """

    children: tuple[Object, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    status: Status
    events: tuple[Event, ...] = ()
    resync_after: float | None = None
    rehearsal: tuple[Object, ...] = ()


def plan(stack: Stack, observed: Observed, now: float, settings: Settings | None = None) -> Plan:
    """What to apply, delete and say. `now` is the wall clock, in seconds.

    Never raises. Deterministic; planned again over its own status and children it asks for no change until something
    else changes or a deadline passes.
    """
    now = min(max(now, 0.0), clock.LAST) if math.isfinite(now) else 0.0
    if stack.deleting:
        return Plan(status=stack.status)
    if stack.spec is None:
        return _only_ready(stack, Said("InvalidSpec", stack.spec_text or "the spec cannot be read"), now)
    if observed.missing:
        return _only_ready(stack, Said("KubeRayMissing", observed.missing), now)
    life = Life(stack, stack.spec, observed, now, stack.status, _blocked(stack, stack.spec))
    life.decide()
    return _made(life, settings or Settings())


def _only_ready(stack: Stack, said: Said, now: float) -> Plan:
    status = conditions.only_ready(stack.status, said, stack.generation, now)
    return Plan(status=status, events=tuple(events(stack.status, status, "")))


def _blocked(stack: Stack, spec: Spec) -> Said | None:
    """The first error that CEL cannot see."""
    metadata = {"name": stack.name, "namespace": stack.namespace, "labels": stack.labels}
    for problem in problems({"metadata": metadata, "spec": msgspec.to_builtins(spec)}):
        if problem.severity == "error":
            return Said(word(problem.reason, "InvalidSpec"), f"{problem.where}: {problem.message}")
    return None


def _made(life: Life, settings: Settings) -> Plan:
    policy = None if life.blocked else render.network_policy(life.stack, life.spec, settings)
    status = conditions.status_of(life)
    return Plan(
        rehearsal=() if life.rehearsal is None else (life.rehearsal,),
        children=tuple(child for child in (policy, life.cluster, life.job) if child is not None),
        deletions=tuple(Deletion(kind, name, uid) for (kind, name), uid in sorted(life.doomed.items())),
        status=status,
        events=tuple(events(life.stack.status, status, life.ended)),
        resync_after=max(SOONEST_S, min(life.wakes)) if life.wakes else None,
    )
