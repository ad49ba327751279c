"""One way to write results down: JSON for programs, Markdown for people."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it has to reach.

    Attributes:
        name: what was measured.
        values: every measurement.
        unit: of the values.
        target: what has to hold, as text.
        reached: whether it holds for the summary that ``target`` speaks of.
        summary: the value that counts (a median, unless ``target`` says otherwise).
    """

    name: str
    values: list[float]
    unit: str
    target: str
    summary: float
    reached: bool


def median_at_most(name: str, values: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure whose median may not exceed ``limit``."""
    median = statistics.median(values)
    return Figure(name, list(values), unit, f"median <= {limit:g}", median, median <= limit)


def median_at_least(name: str, values: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure whose median must reach ``limit``."""
    median = statistics.median(values)
    return Figure(name, list(values), unit, f"median >= {limit:g}", median, median >= limit)


def shown(name: str, values: Sequence[float], unit: str) -> Figure:
    """A figure without a target, to judge others by."""
    return Figure(name, list(values), unit, "-", statistics.median(values), reached=True)


def best_below(name: str, values: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure whose best measurement must lie below ``limit``: for costs that noise only adds to."""
    best = min(values)
    return Figure(name, list(values), unit, f"best < {limit:g}", best, best < limit)


def largest_at_most(name: str, values: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure that may never exceed ``limit``."""
    largest = max(values)
    return Figure(name, list(values), unit, f"largest <= {limit:g}", largest, largest <= limit)


def write(stem: str, title: str, command: str, figures: Sequence[Figure]) -> Path:
    """Write ``<stem>.json`` and ``<stem>.md`` and return the latter's path."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    document = {
        "title": title,
        "command": command,
        "machine": machine,
        "figures": [asdict(figure) for figure in figures],
    }
    (RESULTS / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"# {title}", "", f"Command: `{command}`. Machine: {machine}, shared and noisy.", ""]
    lines += ["| figure | result | min - max (n) | to reach | |", "|---|---|---|---|---|"]
    lines += [_line(figure) for figure in figures]
    path = RESULTS / f"{stem}.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _line(figure: Figure) -> str:
    spread = f"{min(figure.values):.3g} - {max(figure.values):.3g} ({len(figure.values)})"
    result = f"| {figure.name} | {figure.summary:.3g} {figure.unit} | {spread} |"
    if figure.target == "-":
        return f"{result} | |"
    return f"{result} {figure.target} {figure.unit} | {'reached' if figure.reached else '**missed**'} |"
