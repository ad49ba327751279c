"""Pictures of a run: the reward curve, and small ones of the figures beside it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, GRID, LINE, POINT = "#1f2430", "#6b7280", "#e7e9ee", "#3b5bdb", "#e8590c"
SMALL = {
    "loss": "Loss",
    "grad_norm": "Gradient norm, before clipping",
    "reward_std": "Spread of the rewards (std)",
    "clip_fraction": "Share of clipped tokens",
    "logp_diff_max": "Largest gap of log-probs, sampler to trainer",
    "tokens_per_s": "Tokens per second",
}

Row = Mapping[str, Any]


def smoothed(values: Sequence[float], half_life: float = 5.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Exponential moving average with bias correction: after ``half_life`` steps a value weighs half."""
    decay = 0.5 ** (1.0 / half_life)
    total = weight = 0.0
    out = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1.0
        out[i] = total / weight
    return out


def reward_figure(rows: Sequence[Row], evals: Sequence[Row]) -> Figure:
    """Mean reward of every step, its moving average, and the reward on held-out prompts."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    steps = [row["step"] for row in rows]
    rewards = [row["reward_mean"] for row in rows]
    axes.plot(steps, rewards, color=LINE, alpha=0.28, linewidth=1.0, label="each step")
    if rewards:
        axes.plot(steps, smoothed(rewards), color=LINE, linewidth=2.2, label="moving average")
    if evals:
        points = [row["step"] for row in evals], [row["reward_mean"] for row in evals]
        axes.plot(*points, "o", color=POINT, markersize=7, markeredgecolor="white", label="held-out prompts", zorder=5)
    _dress(axes, "Mean reward")
    axes.set_xlabel("Step", color=MUTED)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, loc="best")
    return figure


def small_figure(rows: Sequence[Row], name: str) -> Figure:
    """One figure of ``metrics.jsonl`` over the steps."""
    figure = Figure(figsize=(4.2, 2.1), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["step"] for row in rows], [row[name] for row in rows], color=LINE, linewidth=1.4)
    _dress(axes, SMALL[name])
    return figure


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure, path: Path) -> None:
    """Write the figure to ``path``."""
    FigureCanvasAgg(figure).print_png(str(path))


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
