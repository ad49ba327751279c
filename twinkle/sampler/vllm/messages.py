"""What a sampler and its engine's process say to each other, over a socket that only these two have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinkle.data_format import SamplingParams
from twinkle.sampler.stopping import StopMatch

# Columns of the reported log-probabilities; those from REPORTED on are the most probable tokens.
RAW, SAMPLED, REPORTED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is made of; ``engine_args`` are vLLM's own, already merged with what the mesh asks for.

    ``threads`` is how many threads an operation on a CPU may use.
    """

    folder: str
    engine_args: Mapping[str, Any]
    max_adapters: int
    max_lora_rank: int
    threads: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine runs. ``platform`` is "cpu", "cuda", ...; ``max_adapters`` is 0 when the model takes none."""

    pid: int
    platform: str
    positions: int
    max_adapters: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine did not start, or did not do what a Command asked; ``kind`` names the error's class."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """One response to draw, under a number of the sender's; ``adapter`` is 0 for the model alone."""

    number: int
    prompt: tuple[int, ...]
    params: SamplingParams
    ending_ids: tuple[int, ...]
    stop_strings: tuple[str, ...]
    seed: int
    sample_index: int
    adapter: int


@dataclass(frozen=True, slots=True)
class Add:
    """Serve these."""

    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget these jobs; those that have ended are no mistake. ``adapters`` are forgotten too."""

    jobs: list[int]
    adapters: list[int]


@dataclass(frozen=True, slots=True)
class Command:
    """Call this method of the engine; the answer is Done or Refused."""

    method: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A command was carried out."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A response. T = its tokens; ``logp_TK`` has the columns above, ``ids_TK`` the ids of the reported ones."""

    number: int
    tokens_T: NDArray[np.int32]
    logp_TK: NDArray[np.float64]
    ids_TK: NDArray[np.int32] | None
    ended: bool
    match: StopMatch | None
