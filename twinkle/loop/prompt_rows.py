"""From rows of prompts to what a sampler is asked, and from its responses back to the fields of those rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from twinkle.data.base import Prompt
from twinkle.data_format import SampledSequence
from twinkle.loop.payload import Version

PROMPT_FIELDS = ["prompt", "sample_id", "seed"]


@dataclass(frozen=True)
class PromptRun:
    """A prompt, and the rows that each want a response to it: sample j is for ``rows[j]``."""

    prompt: Prompt
    seed: int
    rows: list[int]


def prompt_runs(data: Mapping[str, Any]) -> list[PromptRun]:
    """The prompts of fetched rows in the order of their sample ids; neighbours with one prompt and seed are one."""
    prompts, seeds = list(data["prompt"]), data["seed"].tolist()
    runs: list[PromptRun] = []
    for row in np.argsort(data["sample_id"].numpy(), kind="stable").tolist():
        if runs and runs[-1].seed == seeds[row] and runs[-1].prompt == prompts[row]:
            runs[-1].rows.append(row)
        else:
            runs.append(PromptRun(prompts[row], seeds[row], [row]))
    return runs


@dataclass(frozen=True)
class Answer:
    """A response, and the prompt's token ids that it was sampled after."""

    sequence: SampledSequence
    prompt_ids: Sequence[int]


def response_fields(answers: Sequence[Answer], version: Version, fingerprint: str) -> dict[str, Any]:
    """The fields of rows, of which ``answers`` has one each, by weights of this version and fingerprint."""
    sequences = [answer.sequence for answer in answers]
    return {
        "prompt_ids": _column([list(answer.prompt_ids) for answer in answers]),
        "response_ids": _column([sequence.tokens for sequence in sequences]),
        "response": [sequence.text for sequence in sequences],
        "stop_reason": [sequence.stop_reason for sequence in sequences],
        "sampler_logprobs": _column([sequence.sampler_logprobs for sequence in sequences]),
        "version": torch.tensor([version] * len(answers)),
        "fingerprint": [fingerprint] * len(answers),
    }


def _column(rows: Sequence[Sequence[float]]) -> torch.Tensor | list[torch.Tensor]:
    """Rows of numbers as one tensor where they are equally long, else as one tensor each."""
    if len({len(row) for row in rows}) == 1:
        return torch.tensor(rows)
    return [torch.tensor(row) for row in rows]
