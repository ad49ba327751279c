"""What a head says of its queue, read by somebody who trusts nothing of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_queue.ledger.explain import CODES
from transfer_queue.status import Bytes, Partitions, QueueStatus, ReasonStatus, Status, TaskStatus, encode
from twinkle_operator.status_document import MOST_BYTES, TEXT, decode

REASON = r"^[A-Za-z][A-Za-z0-9]*$"


def status(**changes: Any) -> bytes:
    task = TaskStatus("train", 320, 512, False, 1, [ReasonStatus("field_missing", 192, "192 rows lack reward")])
    fields: dict[str, Any] = {
        "attempt": 1, "lineage": 1, "step": 12, "version": "1.12", "reward": 0.81234, "checkpoint_step": 10,
        "queue": QueueStatus("train", 320, 512, "320/512"), "tasks": [task],
        "partitions": Partitions(1, 3, 12, 12), "bytes": Bytes(10, None), "ready": True, "reason": "",
    }  # fmt: skip
    return encode(Status(**{**fields, **changes}))


def raw(**changes: Any) -> bytes:
    return json.dumps({**json.loads(status()), **changes}).encode()


def test_the_queues_own_document_is_understood() -> None:
    poll = decode(status(), 5.0)

    assert poll.why == ""
    assert (poll.at, poll.is_ready, poll.reason) == (5.0, False, "MissingField")
    assert poll.text == "320 of 512 rows ready; 192: 192 rows lack reward"
    assert poll.queue is not None
    assert (poll.queue.task, poll.queue.ready, poll.queue.required) == ("train", 320, 512)
    assert (poll.queue.summary, poll.queue.reason) == ("320/512", "MissingField")
    assert poll.progress is not None
    assert (poll.progress.step, poll.progress.reward) == (12, "0.8123")
    assert (poll.progress.version, poll.progress.checkpoint_step) == ("1.12", 10)


def test_a_task_that_has_its_rows_has_no_reason() -> None:
    task = TaskStatus("train", 512, 512, True, 0, [])
    poll = decode(status(queue=QueueStatus("train", 512, 512, "512/512"), tasks=[task]), 0.0)

    assert (poll.is_ready, poll.reason, poll.text) == (True, "", "512 of 512 rows ready")


def test_a_queue_that_nobody_asked_says_so() -> None:
    poll = decode(status(queue=QueueStatus(), tasks=[]), 0.0)

    assert poll.queue is not None
    assert (poll.queue.summary, poll.text) == ("0/0", "no task has asked for rows yet")


def test_the_summary_is_counted_here() -> None:
    poll = decode(raw(queue={"task": "train", "ready": 1, "required": 2, "summary": "999/999"}), 0.0)

    assert poll.queue is not None
    assert poll.queue.summary == "1/2"


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_queue_becomes_a_reason_of_a_condition(code: str) -> None:
    task = {"task": "t", "ready": 0, "required": 1, "is_ready": False, "waiting": 0,
            "reasons": [{"code": code, "rows": 1, "detail": ""}]}  # fmt: skip
    poll = decode(raw(queue={"task": "t", "ready": 0, "required": 1}, tasks=[task]), 0.0)

    assert poll.reason.isalnum()
    assert poll.reason[0].isupper()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "BadDocument"),
        (b"<html>", "BadDocument"),
        (b"\xff\xfe", "BadDocument"),
        (b"[" * 60_000, "BadDocument"),
        (b"x" * (MOST_BYTES + 1), "TooLarge"),
        (raw(schema=2), "UnknownSchema"),
        (raw(queue={"task": "t", "ready": -1, "required": 1}), "BadDocument"),
        (raw(queue={"task": "t", "ready": 1 << 40, "required": 1}), "BadDocument"),
        (raw(step="twelve"), "BadDocument"),
        (raw(tasks=None), "BadDocument"),
    ],
)
def test_what_is_no_document_is_unknown_and_says_why(body: bytes, why: str) -> None:
    poll = decode(body, 1.0)

    assert (poll.why, poll.queue, poll.progress) == (why, None, None)
    assert 0 < len(poll.message) <= TEXT


LONG = st.text(min_size=0, max_size=600)


@given(LONG, LONG, LONG, st.floats(allow_nan=False, allow_infinity=False))
def test_texts_are_cut_and_printable_whatever_they_are(version: str, task: str, code: str, reward: float) -> None:
    reasons = [{"code": code, "rows": 1, "detail": version}]
    body = raw(
        version=version,
        reward=reward,
        queue={"task": task, "ready": 0, "required": 1},
        tasks=[{"task": task, "ready": 0, "required": 1, "is_ready": False, "waiting": 0, "reasons": reasons}],
    )
    poll = decode(body, 0.0)

    assert poll.queue is not None
    assert poll.progress is not None
    for text in (poll.text, poll.message, poll.queue.task, poll.progress.version, poll.progress.reward):
        assert len(text or "") <= TEXT
        assert (text or "").isprintable()
    assert poll.reason.isascii()
    assert poll.reason.isalnum()
    assert poll.reason[0].isalpha()


@given(st.binary(max_size=200))
def test_no_bytes_break_it(body: bytes) -> None:
    assert decode(body, 0.0).why
