"""What a run says to samplers that join it: where its queue and its weights are, and how it wants responses drawn."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle.config import TrainConfig
from twinkle.errors import ConfigError

if TYPE_CHECKING:
    from twinkle.loop.weight_board import WeightBoard

RUN = "run"
"""Beside what a client of the queue reads."""


@dataclass(frozen=True)
class RunToJoin:
    """A run that has samplers attach.

    Attributes:
        settings: its configuration, as plain data.
        model: the folder of the model that it began with.
        board: the address of its weights.
    """

    settings: dict[str, Any]
    model: Path
    board: dict[str, str]


def joining(queue: Mapping[str, Any], config: TrainConfig, model: Path, board: "WeightBoard") -> dict[str, Any]:
    """The queue's controller_info with the run beside it: plain data for a file."""
    run = {"settings": asdict(config), "model": str(model), "board": dict(board.address)}
    info: dict[str, Any] = json.loads(json.dumps({**queue, RUN: run}))
    return info


def run_to_join(info: Mapping[str, Any]) -> RunToJoin | None:
    """What `joining` wrote; None for a queue alone. ConfigError when it is something else."""
    run = info.get(RUN)
    if run is None:
        return None
    try:
        return RunToJoin(dict(run["settings"]), Path(run["model"]), dict(run["board"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"queue.info names a run of another version of twinkle ({error!r}).") from error
