"""`GET :9400/v1/status` of a head, as a `Poll`. It comes from a pod of the user's: nothing in it is trusted."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from twinkle_operator.observed import Poll
from twinkle_operator.state import Progress, Queue
from twinkle_operator.text import one_line

SCHEMA = 1
MOST_BYTES = 1 << 16
TEXT = 256
"""Characters of a text that are kept."""
WORD = 64

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]

REASONS = {"field_missing": "MissingField", "group_incomplete": "IncompleteGroup", "lost": "LostField"}
"""Codes of the queue whose words go the other way round in a condition."""


class _Reason(msgspec.Struct):
    code: str
    rows: Count
    detail: str = ""


class _Task(msgspec.Struct):
    task: str
    ready: Count
    required: Count
    is_ready: bool
    reasons: list[_Reason] = msgspec.field(default_factory=list)


class _Queue(msgspec.Struct):
    task: str | None = None
    ready: Count = 0
    required: Count = 0


class _Document(msgspec.Struct):
    queue: _Queue
    tasks: list[_Task]
    ready: bool
    reason: str
    step: Count | None = None
    version: str | None = None
    reward: float | None = None
    checkpoint_step: Count | None = None


class _Schema(msgspec.Struct):
    schema: int


def decode(body: bytes, at: float) -> Poll:
    """What the document says, or why it says nothing. Never raises."""
    if len(body) > MOST_BYTES:
        return unknown(at, "TooLarge", f"the answer of /v1/status is longer than {MOST_BYTES} bytes")
    try:
        schema = msgspec.json.decode(body, type=_Schema).schema
        if schema != SCHEMA:
            return unknown(at, "UnknownSchema", f"/v1/status has schema {schema}; this operator reads {SCHEMA}")
        return _poll(msgspec.json.decode(body, type=_Document), at)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return unknown(at, "BadDocument", f"/v1/status cannot be read: {error}")


def unknown(at: float, why: str, message: str) -> Poll:
    """A poll without an answer."""
    return Poll(at=at, why=why, message=_cut(message))


def _poll(document: _Document, at: float) -> Poll:
    queue = document.queue
    task = next((task for task in document.tasks if task.task == queue.task), None)
    reasons = [] if task is None or task.is_ready else task.reasons
    reason = reason_of(reasons[0].code) if reasons else None
    return Poll(
        at=at,
        queue=Queue(
            task=None if queue.task is None else _cut(queue.task),
            ready=queue.ready,
            required=queue.required,
            reason=reason,
            summary=f"{queue.ready}/{queue.required}",
        ),
        progress=Progress(
            step=document.step,
            reward=None if document.reward is None else f"{document.reward:.4g}",
            version=None if document.version is None else _cut(document.version),
            checkpoint_step=document.checkpoint_step,
        ),
        is_ready=task.is_ready if task is not None else document.ready,
        reason=reason or ("" if document.ready else "NotReady"),
        text=_text(document, task, reasons),
    )


def _text(document: _Document, task: _Task | None, reasons: list[_Reason]) -> str:
    if task is None:
        return _cut(document.reason or "no task has asked for rows yet")
    rows = f"{task.ready} of {task.required} rows ready"
    return _cut("; ".join([rows, *(f"{each.rows}: {each.detail or each.code}" for each in reasons[:8])]))


def reason_of(code: str) -> str:
    """A code as the reason of a condition: a letter first, letters and digits only."""
    words = "".join(part[:1].upper() + part[1:] for part in code.split("_"))
    clean = "".join(each for each in words if each.isascii() and each.isalnum())[:WORD]
    return REASONS.get(code) or (clean if clean[:1].isalpha() else "NotReady")


def _cut(text: str) -> str:
    return one_line(text, TEXT)
