"""From a call to the responses it asks for, checked once for every engine, and from what was drawn to what is returned.

Nothing here needs torch: an engine of any kind asks ``requests_of`` for its work and answers through ``sequences_of``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.errors import ConfigError, DataError
from twinkle.infra.rank import first_item
from twinkle.sampler.base import Inputs, Params
from twinkle.sampler.prompts import params_per_prompt, prompt_ids
from twinkle.sampler.stopping import Endings, StopMatch
from twinkle.sampler.uniforms import fresh_seed
from twinkle.template import Template


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What requests are checked against.

    Attributes:
        vocab_size: token ids are 0 to vocab_size - 1.
        positions: most tokens of prompt and response together; None = no bound.
        eos_ids: tokens that end a response unless ``ignore_eos`` is set; so do those that end a turn of the template.
        special_ids: special tokens by their text: they never appear in a response's text.
    """

    vocab_size: int
    positions: int | None = None
    eos_ids: frozenset[int] = frozenset()
    special_ids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One response to draw: sample ``sample_index`` of a prompt, with the random numbers of (seed, sample_index).

    ``adapter`` is what the engine made of the adapter's name when the call came in: the weights to draw with.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    endings: Endings
    seed: int
    sample_index: int = 0
    prompt_index: int = 0
    adapter: Any = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one request; all lists are as long as ``tokens``.

    ``ended`` is false when max_tokens ended it. ``match`` is the stop string that ended it, if one did.
    """

    tokens: list[int]
    logprobs: list[float]
    sampler_logprobs: list[float]
    ended: bool
    match: StopMatch | None = None
    top_logprobs: list[dict[int, float]] | None = None


def requests_of(
    inputs: Inputs,
    sampling_params: Params,
    num_samples: int,
    template: Template,
    limits: ModelLimits,
    adapter: Any = None,
) -> list[Request]:
    """The requests of a call, prompt by prompt and sample by sample.

    Raises DataError for an input that cannot be sampled from, ConfigError for parameters that cannot be met; both name
    the input or the field, and say what would be accepted.
    """
    _require_samples(num_samples)
    prompts = prompt_ids(inputs, template)
    params = params_per_prompt(sampling_params, len(prompts))
    eos_ids = limits.eos_ids | set(template.turn_end_ids)
    requests: list[Request] = []
    known: dict[int, Endings] = {}
    for index, (prompt, its_params) in enumerate(zip(prompts, params, strict=True)):
        if id(its_params) not in known:
            known[id(its_params)] = endings = Endings.of(its_params, eos_ids, limits.special_ids)
            _check_params(its_params, endings, limits)
        _check_prompt(first_item() + index, prompt, its_params, limits)
        seed = fresh_seed() if its_params.seed is None else its_params.seed
        row, endings = tuple(prompt), known[id(its_params)]
        requests += [Request(row, its_params, endings, seed, sample, index, adapter) for sample in range(num_samples)]
    return requests


def sequences_of(results: Sequence[tuple[Request, Drawn]], template: Template) -> list[SampledSequence]:
    """What a caller gets for each of these, in their order."""
    texts = template.decode_batch([_visible(drawn) for _, drawn in results])
    return [
        SampledSequence(
            tokens=drawn.tokens,
            text=text if drawn.match is None else drawn.match.text,
            stop_reason="stop" if drawn.ended else "length",
            logprobs=drawn.logprobs,
            sampler_logprobs=drawn.sampler_logprobs,
            prompt_index=request.prompt_index,
            sample_index=request.sample_index,
            stopped_by=_stopped_by(request, drawn),
            top_logprobs=drawn.top_logprobs,
        )
        for (request, drawn), text in zip(results, texts, strict=True)
    ]


def _visible(drawn: Drawn) -> list[int]:
    ended_by_token = drawn.ended and drawn.match is None
    return drawn.tokens[:-1] if ended_by_token else drawn.tokens


def _stopped_by(request: Request, drawn: Drawn) -> str | int | None:
    if drawn.match is not None:
        return drawn.match.string
    if not drawn.ended:
        return None
    return request.endings.reported.get(drawn.tokens[-1], drawn.tokens[-1])


def _require_samples(num_samples: object) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ConfigError(f"num_samples is {num_samples!r}; it must be an integer >= 1")


def _check_prompt(index: int, prompt: Sequence[int], params: SamplingParams, limits: ModelLimits) -> None:
    size, positions = limits.vocab_size, limits.positions
    if not 0 <= min(prompt) <= max(prompt) < size:
        outside = next(token for token in prompt if not 0 <= token < size)
        raise DataError(f"input {index} has the token id {outside}; this model's vocabulary is 0 to {size - 1}")
    if positions is not None and len(prompt) + params.max_tokens > positions:
        raise DataError(
            f"input {index} has {len(prompt)} tokens and max_tokens is {params.max_tokens}, together more than the "
            f"{positions} positions of this model; shorten the prompt or lower max_tokens"
        )


def _check_params(params: SamplingParams, endings: Endings, limits: ModelLimits) -> None:
    size, allowed = limits.vocab_size, params.allowed_token_ids
    for name, ids in (("stop_token_ids", params.stop_ids), ("allowed_token_ids", allowed or ())):
        if ids and max(ids) >= size:
            raise ConfigError(f"SamplingParams.{name} has {max(ids)}; this model's vocabulary is 0 to {size - 1}")
    if params.min_tokens and allowed is not None and set(allowed) <= set(endings.ids):
        raise ConfigError(
            f"SamplingParams.min_tokens is {params.min_tokens}, but every allowed token ends the response, "
            "so that no first token is left"
        )
