"""What a person sees in the terminal: the plan, a progress bar, and what came of it."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

LINES_WITHOUT_TERMINAL = 20


def show_plan(console: Console, title: str, plan: Sequence[tuple[str, str]]) -> None:
    """Print what is about to be trained."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in plan:
        table.add_row(label, escape(value))
    console.print(table)
    console.print()


def show_samples(console: Console, pairs: Sequence[Mapping[str, Any]], after_label: str) -> None:
    """Print held-out prompts with the responses before and after."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("prompt", "expected", "before", after_label):
        table.add_column(heading, overflow="fold", max_width=40)
    for pair in pairs:
        table.add_row(*(escape(str(pair[key])) for key in ("prompt", "answer", "before", "after")))
    console.print(table)


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
            TextColumn("reward [bold]{task.fields[reward]}[/]  loss {task.fields[loss]}  {task.fields[tokens]} tokens/s"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._bar = self._progress.add_task("", total=steps, completed=done, reward="-", loss="-", tokens="-")

    def __enter__(self) -> "StepProgress":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, row: Mapping[str, Any]) -> None:
        """Show one step's figures."""
        fields = {
            "reward": f"{row['reward_mean']:.3f}",
            "loss": f"{row['loss']:+.4f}",
            "tokens": f"{row['tokens_per_s']:,.0f}",
        }
        self._progress.update(self._bar, completed=row["step"], **fields)
        if not self.console.is_terminal and (row["step"] % self._every == 0 or row["step"] in (1, self.steps)):
            self.console.print(
                f"step {row['step']}/{self.steps}  reward {fields['reward']}  loss {fields['loss']}  {fields['tokens']} tokens/s",
                highlight=False,
            )
