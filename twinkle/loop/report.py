"""The report: one HTML file without a single link outside, and the reward curve as a picture."""

import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from twinkle import __version__
from twinkle.loop.plots import SMALL, png, reward_figure, small_figure, svg
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import RESULT, STARTED

SAMPLES_SHOWN = 8
CAPTIONS = {
    "loss": "Near zero by construction: the advantages of a group add up to zero. Its gradient is what trains.",
    "grad_norm": "How strongly a step pulls. Zero for long: nothing is learned. Growing without end: divergence.",
    "reward_std": "How much the samples of a step differ. Without differences there is nothing to compare.",
    "clip_fraction": "Tokens beyond the trust bound. Always zero with one update per step (algo.updates_per_step=1).",
    "logp_diff_max": "About 1e-5 is rounding. More would mean that sampler and trainer hold different weights.",
    "tokens_per_s": "Sampled tokens over the time of the whole step.",
}
CONTENTS = {
    "adapter": "the trained LoRA adapter, in the PEFT format",
    "model": "the trained model, in the transformers format",
    "base_model": "the small model that this run made and started from",
    "metrics.jsonl": "the figures of every step, one JSON object a line",
    "samples.jsonl": "some of the samples that were trained on",
    "evals.jsonl": "responses to the held-out prompts",
    "config.yaml": "the resolved configuration",
    "checkpoints": "what run.resume continues from",
    "tensorboard": "event files: tensorboard --logdir",
    "reward.png": "the curve above as a picture",
    RESULT: "the held-out reward before and after; written last, so that a run without it is unfinished",
    STARTED: "the settings that a run must share to continue this one",
}


def write_report(folder: Path, *, title: str, plan: Sequence[tuple[str, str]], steps: int) -> Path:
    """Write ``reward.png`` and ``report.html`` from what the run folder holds; returns the report's path.

    Args:
        folder: the run folder.
        title: the run's name.
        plan: label and value of what was planned, as shown at the start.
        steps: how many steps the whole run has.
    """
    rows, evals = read_rows(folder / "metrics.jsonl"), read_rows(folder / "evals.jsonl")
    done = rows[-1]["step"] if rows else 0
    curve = reward_figure(rows, evals)
    png(curve, folder / "reward.png")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("twinkle.loop").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    config = folder / "config.yaml"
    html = page.render(
        title=title,
        finished=done >= steps,
        status="finished" if done >= steps else f"stopped at step {done} of {steps}",
        plan=plan,
        tiles=_tiles(rows, evals),
        reward_svg=svg(curve),
        pairs=_pairs(evals),
        after_label=f"Step {evals[-1]['step']}" if evals else "",
        charts=[
            {"svg": svg(small_figure(rows, name)), "caption": CAPTIONS[name]}
            for name in SMALL
            if rows and name in rows[0]
        ],
        files=_files(folder, finished=done >= steps),
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        package_version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _files(folder: Path, *, finished: bool) -> list[dict[str, str]]:
    """What lies there; the result of a finished run is written after its report."""
    there = (name for name in CONTENTS if (folder / name).exists() or (name == RESULT and finished))
    return [{"name": name, "what": CONTENTS[name]} for name in there]


def _tiles(rows: Sequence[Mapping[str, Any]], evals: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    tiles = []
    if evals:
        tiles.append({"value": f"{evals[-1]['reward_mean']:.3f}", "label": "held-out reward after"})
        tiles.append({"value": f"{evals[0]['reward_mean']:.3f}", "label": "held-out reward before"})
    if rows:
        seconds = sum(row["seconds"] for row in rows)
        tokens = sum(row["tokens_per_s"] * row["seconds"] for row in rows)
        tiles += [
            {"value": f"{rows[-1]['step']:,}", "label": "steps"},
            {"value": _duration(seconds), "label": "in the training loop"},
            {"value": f"{tokens / max(seconds, 1e-9):,.0f}", "label": "tokens per second"},
            {"value": f"{max(row['logp_diff_max'] for row in rows):.1e}", "label": "largest log-prob gap"},
        ]
    return tiles


def _pairs(evals: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if len(evals) < 2:
        return []
    both = zip(evals[0]["samples"], evals[-1]["samples"], strict=True)
    pairs = [{"prompt": old["prompt"], "answer": old["answer"], "before": old, "after": new} for old, new in both]
    return pairs[:SAMPLES_SHOWN]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
