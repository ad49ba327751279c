"""A sweep, ``twinkle-train -m``: which jobs there are, and what came of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twinkle.loop.run_folder import RESULT


@dataclass
class Sweep:
    """The jobs of a sweep in their order, and those that ended.

    Attributes:
        jobs: for each job, the overrides in which it differs from another.
        ended: exit code and run folder of each job that ended by itself.
    """

    jobs: list[str]
    begun: int = 0
    ended: list[tuple[int, Path | None]] = field(default_factory=list)

    def begin(self, console: Console) -> None:
        """Say which job begins."""
        job = self.jobs[self.begun] if self.begun < len(self.jobs) else ""
        self.begun += 1
        console.print(f"Job {self.begun} of {len(self.jobs)}: {job}", style="bold", markup=False, soft_wrap=True)

    def show(self, console: Console) -> None:
        """Print what came of each job."""
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        for heading in ("job", "held-out reward", "run folder"):
            table.add_column(heading, overflow="fold")
        for number, job in enumerate(self.jobs):
            table.add_row(escape(job), *self._outcome(number))
        console.print("\nThe sweep:", style="bold")
        console.print(table)

    def _outcome(self, number: int) -> tuple[str, str]:
        if number >= len(self.ended):
            return "[yellow]ended early[/]" if number < self.begun else "[yellow]not run[/]", ""
        code, folder = self.ended[number]
        if code:
            return f"[red]failed (exit code {code})[/]", ""
        if folder is None or not (folder / RESULT).exists():
            return "-", ""
        result = json.loads((folder / RESULT).read_text())
        return f"{result['eval_reward_before']:.3f} -> {result['eval_reward_after']:.3f}", escape(_near(folder))


def sweep_of(arguments: Sequence[str]) -> Sweep | None:
    """The sweep that Hydra makes of these arguments; None when they ask for none, or cannot be read."""
    if not {"-m", "--multirun"} & set(arguments):
        return None
    try:
        overrides = OverridesParser.create().parse_overrides(
            [each for each in arguments if "=" in each and not each.startswith("-")]
        )
    except OverrideParseException:
        return None  # Hydra meets it too, and it is explained there
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        for each in overrides
        if each.is_sweep_override()
    ]
    return Sweep([" ".join(job) for job in product(*values)])


def _near(folder: Path) -> str:
    """The folder, from here when it lies below."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
