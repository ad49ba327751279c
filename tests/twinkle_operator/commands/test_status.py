"""The view of a stack."""

from __future__ import annotations

import io

from rich.console import Console

from tests.twinkle_operator import raw
from twinkle_operator import strip
from twinkle_operator.commands.status import age, view
from twinkle_operator.observed import Stack

AT = "2026-01-01T00:00:00Z"
STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Running", "message": "step 12 runs", "observedGeneration": 1,
         "lastTransitionTime": AT},
        {"type": "QueueReady", "status": "False", "reason": "MissingField", "message": "320 of 512 rows ready",
         "observedGeneration": 0, "lastTransitionTime": AT},
    ],
    "queue": {"task": "train", "ready": 320, "required": 512, "summary": "320/512", "reason": "MissingField"},
    "progress": {"step": 12, "reward": "0.8123", "version": "1.12", "checkpointStep": 10},
    "deviceGroups": [{"name": "sampler", "desired": 2, "ready": 1}],
    "attempts": 2,
    "restarts": 1,
    "rayJob": "s-2",
}  # fmt: skip


def text(stack: Stack) -> str:
    console = Console(width=160, file=io.StringIO(), color_system=None)
    console.print(view(stack, strip.seconds(AT) + 3 * 3600))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_that_matters_is_in_the_view() -> None:
    shown = text(strip.stack(raw.stack(1, status=STATUS)))

    for part in ("n/s", "320/512 rows for train, MissingField", "0.8123", "1.12", "2 begun, 0 failed, 1 restarted",
                 "s-2", "step 12 runs", "3h", "sampler", "1/2", "(of an earlier spec)"):  # fmt: skip
        assert part in shown


def test_a_stack_of_which_nothing_was_said_says_what_to_look_at() -> None:
    assert "does it run, and watch this namespace?" in text(strip.stack(raw.stack(1)))


def test_without_a_driver_there_is_no_queue_that_could_be_asked() -> None:
    begun = {key: value for key, value in STATUS.items() if key != "queue"}

    assert "nothing asked yet" in text(strip.stack(raw.stack(1, status=begun)))
    assert "no driver runs" in text(strip.stack(raw.stack(1, status=begun | {"ended": 2})))


def test_text_of_a_pod_is_shown_and_not_obeyed() -> None:
    status = {**STATUS, "queue": {"task": "[bold red]x[/]", "summary": "0/1"}}

    assert "[bold red]x[/]" in text(strip.stack(raw.stack(1, status=status)))


def test_ages() -> None:
    assert [age(seconds) for seconds in (-5, 0, 59, 60, 3600, 86_400 * 3)] == ["0s", "0s", "59s", "1m", "1h", "3d"]
