"""One response to draw, and what was drawn for it."""

from dataclasses import dataclass

from twinkle.data_format import SamplingParams
from twinkle.sampler.stopping import Endings, StopMatch


@dataclass(frozen=True, slots=True)
class Request:
    """One response to draw: sample ``sample_index`` of a prompt, with the random numbers of (seed, sample_index)."""

    prompt: tuple[int, ...]
    params: SamplingParams
    endings: Endings
    seed: int
    sample_index: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one request; all lists are as long as ``tokens``.

    ``ended`` is false when max_tokens ended it. ``match`` is the stop string that ended it, if one did.
    """

    tokens: list[int]
    logprobs: list[float]
    sampler_logprobs: list[float]
    ended: bool
    match: StopMatch | None
    top_logprobs: list[dict[int, float]] | None
