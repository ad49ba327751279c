"""One way to write results down: JSON for programs, Markdown for people."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
        peer: every measurement of the system measured beside ours, in the same unit and order.
        ratios: how many times better we were, pair by pair.
        note: what a reader has to know to judge the figure.
    """

    name: str
    values: list[float]
    unit: str
    target: str
    summary: float | None
    reached: bool
    peer: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    note: str = ""


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


def beside(figure: Figure, peer: Sequence[float], better: Callable[[float, float], float]) -> Figure:
    """The same figure with the peer's values and the ratios shown; ``better`` is ``more`` or ``less``."""
    pairs = zip(figure.values, peer, strict=False)
    return replace(figure, peer=list(peer), ratios=[better(ours, theirs) for ours, theirs in pairs])


def more(ours: float, peer: float) -> float:
    """How many times better ours is where more is better."""
    return ours / peer


def less(ours: float, peer: float) -> float:
    """How many times better ours is where less is better."""
    return peer / ours


def times_at_least(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    limit: float,
    unit: str,
    better: Callable[[float, float], float],
) -> Figure:
    """A figure where the median of the ratios to the peer, pair by pair, must reach ``limit``."""
    figure = beside(shown(name, ours, unit), peer, better)
    median = statistics.median(figure.ratios)
    return replace(figure, target=f"ratio >= {limit:g}", summary=median, reached=median >= limit)


def missing(name: str, target: str, reason: str) -> Figure:
    """A figure that could not be measured, and so is missed."""
    return Figure(name, [], "", target, None, reached=False, note=reason)


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
    table = _beside_peer if any(figure.peer for figure in figures) else _alone
    lines += table(figures)
    notes = [f"- {figure.name}: {figure.note}" for figure in figures if figure.note]
    path = RESULTS / f"{stem}.md"
    path.write_text("\n".join([*lines, *(["", *notes] if notes else [])]) + "\n")
    return path


def _alone(figures: Sequence[Figure]) -> list[str]:
    head = ["| figure | result | min - max (n) | to reach | |", "|---|---|---|---|---|"]
    return head + [
        f"| {figure.name} | {_number(figure.summary)} {figure.unit} | {_spread(figure.values)} | {_verdict(figure)} |"
        for figure in figures
    ]


def _beside_peer(figures: Sequence[Figure]) -> list[str]:
    head = "| figure | ours (min - max, n) | peer (min - max, n) | times better (min - max) | to reach | |"
    rows = []
    for figure in figures:
        units = ((figure.values, figure.unit), (figure.peer, figure.unit), (figure.ratios, "x"))
        sides = [
            f"{statistics.median(values):.3g} {unit} ({_spread(values)})" if values else "" for values, unit in units
        ]
        rows.append(f"| {figure.name} | {' | '.join(sides)} | {_verdict(figure)} |")
    return [head, "|---|---|---|---|---|---|", *rows]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3g} - {max(values):.3g} ({len(values)})" if values else "-"


def _verdict(figure: Figure) -> str:
    if figure.target == "-":
        return "|"
    unit = "" if figure.ratios and figure.target.startswith("ratio") else f" {figure.unit}"
    return f"{figure.target}{unit} | {'reached' if figure.reached else '**missed**'}"


def run_parts(name: str, title: str, parts: Mapping[str, Callable[[], list[Figure]]], chosen: Sequence[str]) -> int:
    """Measure the chosen parts (none: all), write after each, print; 1 when a figure was missed, 2 for no such part."""
    unknown = [part for part in chosen if part not in parts]
    if unknown:
        print(f"{unknown[0]!r} is none of {', '.join(parts)}")
        return 2
    stem = f"{name}-part" if chosen else name
    command = " ".join([f"python -m benchmarks.{name}", *chosen]) if chosen else f"make bench-{name}"
    figures: list[Figure] = []
    for part in chosen or parts:
        print(f"{part} ...", flush=True)
        figures += parts[part]()
        written = write(stem, title, command, figures)
    print(written.read_text())
    return int(not all(figure.reached for figure in figures))
