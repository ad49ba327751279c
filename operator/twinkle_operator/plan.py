"""`plan`: what Kubernetes should hold for a stack, from what it holds now. Pure; everything else executes it."""

from __future__ import annotations

from typing import Any

import msgspec

from twinkle_operator.observed import Observed, Stack
from twinkle_operator.settings import Settings
from twinkle_operator.state import Status


class Deletion(msgspec.Struct, frozen=True):
    """A child to delete, if it still is the object of that uid."""

    kind: str
    name: str
    uid: str


class Event(msgspec.Struct, frozen=True):
    """An event on the stack; `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


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

    children: tuple[dict[str, Any], ...] = ()
    deletions: tuple[Deletion, ...] = ()
    status: Status
    events: tuple[Event, ...] = ()
    resync_after: float | None = None
    rehearsal: tuple[dict[str, Any], ...] = ()


def plan(stack: Stack, observed: Observed, now: float, settings: Settings = Settings()) -> Plan:
    """What to apply, delete and say. `now` is the wall clock, in seconds.

    Never raises. Deterministic; planned again over its own status and children it asks for no change until something
    else changes or a deadline passes.
    """
    return Plan(status=stack.status)
