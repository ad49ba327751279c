"""What a run writes down while it goes: one JSON object a line, and TensorBoard and Weights & Biases beside it."""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

from twinkle.errors import ConfigError
from twinkle.loop.config import MetricsConfig
from twinkle.loop.run_folder import STARTED, read_json


class JsonLines:
    """An append-only file of JSON objects that each bear a ``step``.

    Args:
        path: the file.
        keep_through_step: a resumed run's boundary: later rows, and a last line that a crash tore, are cut off.
    """

    def __init__(self, path: Path, *, keep_through_step: int = 0):
        self.path = path
        _cut(path, keep_through_step)
        self._file: IO[str] = path.open("a")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one object; a reader sees it at once."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Return when every row is on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; rows stay."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a JSON-lines file; a torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _cut(path: Path, step: int) -> None:
    rows = read_rows(path)
    if not path.exists():
        return
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    draft.replace(path)


class Scalars(Protocol):
    """A place that takes the figures of one step."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Record ``figures`` of ``step``."""

    def close(self) -> None:
        """Flush and end."""


class TensorBoard:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, *, purge_from_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_from_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Record ``figures`` of ``step``."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and end."""
        self._writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, continued under the run folder's name."""

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any]):
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ConfigError(
                "metrics.wandb=true needs the package wandb: pip install 'twinkle-rl[wandb]' (in a clone: "
                ".venv/bin/uv pip install --constraints constraints/main.txt --editable '.[torch,wandb]')."
            ) from error
        self._run = wandb.init(
            project=project,
            id=read_json(folder / STARTED)["id"],
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            resume="allow",
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Record ``figures`` of ``step``."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Flush and end."""
        self._run.finish()


class Records:
    """All the places where a run's figures and samples go."""

    def __init__(self, folder: Path, metrics: MetricsConfig, settings: Mapping[str, Any], *, resumed_step: int):
        with ExitStack() as opened:
            self.metrics = JsonLines(folder / "metrics.jsonl", keep_through_step=resumed_step)
            opened.callback(self.metrics.close)
            self.samples = JsonLines(folder / "samples.jsonl", keep_through_step=resumed_step)
            opened.callback(self.samples.close)
            self._scalars: list[Scalars] = []
            if metrics.tensorboard:
                self._scalars.append(TensorBoard(folder / "tensorboard", purge_from_step=resumed_step + 1))
            if metrics.wandb:
                self._scalars.append(WeightsAndBiases(metrics.wandb_project, folder, settings))
            for scalars in self._scalars:
                opened.callback(scalars.close)
            self._opened = opened.pop_all()

    def step(self, row: Mapping[str, Any]) -> None:
        """Write one step's figures everywhere."""
        self.metrics.write(row)
        figures = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"
        }
        for scalars in self._scalars:
            scalars.write(row["step"], figures)

    def evaluated(self, result: Mapping[str, Any]) -> None:
        """Show an evaluation beside the figures of its step."""
        for scalars in self._scalars:
            scalars.write(result["step"], {"eval_reward_mean": result["reward_mean"]})

    def sync(self) -> None:
        """Return when metrics and samples are on disk."""
        self.metrics.sync()
        self.samples.sync()

    def close(self) -> None:
        """Close every place."""
        self._opened.close()
