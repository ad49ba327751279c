"""What a sampler returns."""

from dataclasses import dataclass
from typing import Literal

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SampledSequence:
    """One sampled response.

    ``tokens``, ``logprobs`` and ``sampler_logprobs`` have the same length: every token that was sampled is there, the
    EOS or stop token and the tokens of a stop string included. ``text`` is what a reader should see: it ends right
    before the stop string or stop token, and holds no special tokens.

    ``logprobs[t]`` is the log-softmax of the model's raw logits at the sampled token (natural logarithm).
    ``sampler_logprobs[t]`` is its log-probability under the distribution that was really sampled from: after
    temperature, top-k, top-p, allowed and forbidden tokens; 0.0 for greedy decoding.
    ``stop_reason`` is "stop" when EOS, a stop token or a stop string ended the response, "length" when max_tokens did.
    ``stopped_by`` is the stop string or the token id that ended it, None for "length".
    ``top_logprobs[t]``, present when SamplingParams.logprobs was given, maps token id to raw log-probability: the most
    probable ones, and always the sampled one.
    """

    tokens: list[int]
    text: str
    stop_reason: StopReason
    logprobs: list[float]
    sampler_logprobs: list[float]
    prompt_index: int
    sample_index: int
    stopped_by: str | int | None = None
    top_logprobs: list[dict[int, float]] | None = None


@dataclass(frozen=True, slots=True)
class SampleResponse:
    """All responses, prompt by prompt: ``sequences[i * num_samples + j]`` is sample j of input i."""

    sequences: list[SampledSequence]
