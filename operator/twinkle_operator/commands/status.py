"""`twinkle status NAME`: conditions, queue, progress and pods of a stack in one view."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from twinkle_operator.commands.access import Access
from twinkle_operator.observed import Stack
from twinkle_operator.state import Condition, Status
from twinkle_operator.strip import seconds

READY, NOT_READY = 0, 3
GOOD, BAD, OPEN = "green", "red", "yellow"
DONE = ("Ready", "Complete")


def status(name: str, namespace: str | None, context: str | None) -> int:
    """Print the view; 0 if the stack is Ready or Complete, else 3.

    Raises:
        OperatorError: it cannot be read.
    """
    stack, _ = Access(namespace, context).stack(name)
    Console().print(view(stack, datetime.now(UTC).timestamp()))
    true = [condition.type for condition in stack.status.conditions if condition.status == "True"]
    return READY if set(true) & set(DONE) else NOT_READY


def view(stack: Stack, now: float) -> RenderableType:
    """All of it, from the stack alone."""
    title = Text(f"{stack.namespace}/{stack.name}", style="bold")
    if not stack.status.conditions:
        return Group(
            title, Text("The operator has not said anything of it yet: does it run, and watch this namespace?")
        )
    parts: list[RenderableType] = [title, _facts(stack.status), _conditions(stack, now)]
    if stack.status.device_groups:
        parts.append(_groups(stack.status))
    return Group(*parts)


def _facts(status: Status) -> Table:
    table = Table.grid(padding=(0, 2))
    queue, progress = status.queue, status.progress
    waiting = "" if queue is None or not queue.reason else f", {queue.reason}"
    nothing = "nothing asked yet" if status.ended < status.attempts else "no driver runs"
    asked = "" if queue is None or not queue.task else f" rows for {queue.task}"
    rows = [
        ("Queue", nothing if queue is None else f"{queue.summary}{asked}{waiting}"),
        ("Step", "" if progress is None or progress.step is None else str(progress.step)),
        ("Reward", "" if progress is None else progress.reward),
        ("Version", "" if progress is None else progress.version),
        ("Checkpoint", "" if progress is None or progress.checkpoint_step is None else f"{progress.checkpoint_step}"),
        ("Attempts", f"{status.attempts} begun, {status.failures} failed, {status.restarts} restarted"),
        ("RayCluster", status.ray_cluster),
        ("RayJob", status.ray_job),
        ("Run folder", status.run_folder),
    ]
    for name, text in rows:
        if text:
            table.add_row(Text(name, style="dim"), Text(text))
    return table


def _conditions(stack: Stack, now: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("Condition", "", "For", "Reason", "Message"):
        table.add_column(name, overflow="fold")
    for condition in stack.status.conditions:
        old = condition.observed_generation < stack.generation
        message = condition.message + (" (of an earlier spec)" if old else "")
        table.add_row(
            Text(condition.type),
            Text(condition.status, style=_style(condition)),
            Text(age(now - seconds(condition.last_transition_time)), style="dim"),
            Text(condition.reason),
            Text(message),
        )
    return table


def _groups(status: Status) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("Device group")
    table.add_column("Pods ready")
    for group in status.device_groups:
        style = GOOD if group.ready >= group.desired else OPEN
        table.add_row(Text(group.name), Text(f"{group.ready}/{group.desired}", style=style))
    return table


def _style(condition: Condition) -> str:
    if condition.status == "Unknown":
        return OPEN
    if condition.type == "Failed":
        return BAD if condition.status == "True" else ""
    if condition.type in ("Suspended", "Complete"):
        return GOOD if condition.status == "True" else ""
    return GOOD if condition.status == "True" else OPEN


def age(passed: float) -> str:
    """Seconds as kubectl says them: 42s, 5m, 3h, 2d."""
    whole = max(0, int(passed))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
