"""What a person sees in the terminal: the plan, a progress bar, and what came of it."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

LINES_WITHOUT_TERMINAL = 20
SAMPLES_PRINTED = 5
LONGEST_SHOWN = 120


def show_plan(console: Console, title: str, plan: Sequence[tuple[str, str]], beginning: str = "") -> None:
    """Print what is about to be trained, and the sentence that says where it goes on."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in plan:
        table.add_row(label, escape(value))
    console.print(table)
    if beginning:
        console.print(f"\n{beginning}", markup=False, soft_wrap=True)
    console.print()


def show_outcome(
    console: Console, before: Mapping[str, Any], after: Mapping[str, Any], *, kept: Path, report: Path, seconds: float
) -> None:
    """Print the reward before and after, some responses, and where things lie."""
    console.print(
        f"\nReward on {after['prompts']} held-out prompts: [dim]{before['reward_mean']:.3f} before[/], "
        f"[bold]{after['reward_mean']:.3f} after[/] {after['step']} steps ({seconds:.1f} s)\n"
    )
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("prompt", "expected", "before", "reward", "after", "reward"):
        table.add_column(heading, overflow="fold", max_width=40)
    for old, new in list(zip(before["samples"], after["samples"], strict=True))[:SAMPLES_PRINTED]:
        answers = ((each["response"], f"{each['reward']:.2f}") for each in (old, new))
        table.add_row(*map(_shown, (new["prompt"], new["answer"], *itertools.chain(*answers))))
    console.print(table)
    console.print(f"\n  {kept.name:9} {kept}\n  report    {report}", markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    """What a model wrote, short and harmless to a terminal: control characters as a dot, markup as text."""
    short = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return escape("".join(character if character.isprintable() else "·" for character in short))


def warn_without_signal(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Say so when most steps had nothing to learn from."""
    empty = sum(row["grad_norm"] == 0 or row["reward_std"] == 0 for row in rows)
    if 2 * empty > len(rows):
        console.print(
            f"\nIn {empty} of {len(rows)} steps the samples of every prompt had the same reward, so there was nothing "
            "to learn from: use a reward that gives partial credit, easier prompts, or more samples_per_prompt (in the "
            'README: "Your own model, data and reward").',
            style="yellow",
            soft_wrap=True,
        )


class StepProgress:
    """A progress bar on a terminal; where there is none, a plain line now and then.

    Args:
        console: where to print.
        steps: of the whole run.
        done: steps that an earlier process did.
    """

    def __init__(self, console: Console, *, steps: int, done: int):
        self.console = console
        self.steps = steps
        self._every = max(1, steps // LINES_WITHOUT_TERMINAL)
        self._progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn(
                "reward [bold]{task.fields[reward]}[/]  loss {task.fields[loss]}  {task.fields[tokens]} tokens/s"
            ),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._bar = self._progress.add_task("", total=steps, completed=done, reward="-", loss="-", tokens="-")

    def __enter__(self) -> "StepProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, row: Mapping[str, Any]) -> None:
        """Show one step's figures."""
        fields = {
            "reward": f"{row['reward_mean']:.3f}",
            "loss": f"{row['loss']:.1e}",
            "tokens": f"{row['tokens_per_s']:,.0f}",
        }
        self._progress.update(self._bar, completed=row["step"])
        self._progress.tasks[self._bar].fields.update(fields)
        if not self.console.is_terminal and (row["step"] % self._every == 0 or row["step"] in (1, self.steps)):
            self.console.print(
                "step {step}/{steps}  reward {reward}  loss {loss}  {tokens} tokens/s".format(
                    step=row["step"], steps=self.steps, **fields
                ),
                highlight=False,
            )
