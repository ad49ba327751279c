"""Sampling with PyTorch and transformers alone: small models, debugging, machines without a GPU."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from twinkle import hub
from twinkle.choices import one_of
from twinkle.data_format import SampledSequence, SampleResponse, SamplingParams
from twinkle.errors import ConfigError, DataError, ModelNotFoundError, WeightSyncError
from twinkle.infra import DeviceMesh, current_runtime
from twinkle.model.attention import FLOAT64
from twinkle.model.folder import DTYPES, read_model
from twinkle.sampler.adapter_source import AdapterSource
from twinkle.sampler.adapters import Adapters
from twinkle.sampler.base import Inputs, Sampler
from twinkle.sampler.causal_model import CausalModel
from twinkle.sampler.decoding import decode
from twinkle.sampler.prompts import params_per_prompt, prompt_ids
from twinkle.sampler.requests import Drawn, Request
from twinkle.sampler.stopping import Endings
from twinkle.sampler.uniforms import fresh_seed
from twinkle.sampler.weights import FullWeights

# Without any of these transformers makes up a tokenizer that knows no words.
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


class TorchSampler(Sampler):
    """Batched sampling from a Hugging Face causal model in the calling process.

    The sampler owns its weights: loading copies values and never keeps a caller's tensor. Sampling neither reads nor
    sets the global random generators of torch, numpy or Python.

    Promised: the same seed and sample index use the same random numbers, whatever else is in the batch. On one thread
    of a CPU, in float32, a response is the same bit for bit among batches whose longest prompts are equally long. Not
    promised: equal bits with several threads (they depend on a row's place in the batch), under another padding, device
    or torch version; there, log-probabilities differ by about 1e-6, so that a token can differ where a random number
    falls that close to a boundary.

    Not safe to use from several threads at once.
    """

    def __init__(
        self,
        model_id: str | os.PathLike[str],
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        max_rows: int = 256,
    ) -> None:
        """Load a model (id or folder, see hub.resolve).

        ``device_mesh`` may have one rank only; ``remote_group`` names a group of ``initialize`` whose device type is
        used when ``device`` ("cpu", "cuda", "cuda:1", ...) is not given. ``max_rows``: most samples in one batch.
        """
        if device_mesh is not None and device_mesh.world_size != 1:
            raise ConfigError(
                f"device_mesh has {device_mesh.world_size} ranks; a TorchSampler in local mode runs on one"
            )
        if max_rows < 1:
            raise ConfigError(f"max_rows is {max_rows!r}; it must be an integer >= 1")
        folder = hub.resolve(model_id)
        super().__init__(_load_tokenizer(folder))
        dtype = one_of("dtype", str(dtype), list(DTYPES))
        place = _device(device, remote_group)
        attention = FLOAT64 if (place.type, dtype) == ("cpu", "float32") else None
        module = read_model(folder, place, DTYPES[dtype], attention).requires_grad_(False)
        self._max_rows = max_rows
        self._model = CausalModel(module)
        self._weights = FullWeights(module)
        self._adapters = Adapters(module)
        self._eos_ids = _eos_ids(module, self.tokenizer)
        self._special_ids = {
            token: self.tokenizer.convert_tokens_to_ids(token) for token in self.tokenizer.all_special_tokens
        }
        if len(self.tokenizer) > self._model.vocab_size:
            raise ConfigError(
                f"the tokenizer in {str(folder)!r} has {len(self.tokenizer)} tokens, its model only "
                f"{self._model.vocab_size}: they do not belong together"
            )

    @property
    def positions(self) -> int | None:
        """Most tokens that prompt and response may have together; None when the model has no bound."""
        return self._model.positions

    @property
    def adapter_names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return self._adapters.names

    def sample(
        self,
        inputs: Inputs,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
    ) -> SampleResponse:
        """``num_samples`` responses to each input, prompt by prompt; see Sampler.sample.

        Raises DataError for an input that cannot be sampled from, ConfigError for parameters that cannot be met,
        AdapterError for an unknown adapter.
        """
        _require_samples(num_samples)
        prompts = prompt_ids(inputs, self.template)
        params = params_per_prompt(sampling_params, len(prompts))
        requests: list[Request] = []
        for index, (prompt, its_params) in enumerate(zip(prompts, params, strict=True)):
            requests += self._requests(index, tuple(prompt), its_params, num_samples)
        self._adapters.activate(adapter_name)
        drawn: list[Drawn] = []
        with torch.inference_mode():
            for start in range(0, len(requests), self._max_rows):
                drawn += decode(self._model, requests[start : start + self._max_rows], self._text)
        return SampleResponse(self._sequences(requests, drawn, num_samples))

    def add_adapter_to_model(
        self,
        adapter_name: str,
        config_or_dir: AdapterSource,
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a LoRA adapter from a folder in PEFT's format, or from a configuration (LoraConfig or a mapping of its
        fields) and tensors in memory under the names of PEFT's files.

        A configuration without tensors is a fresh adapter that changes nothing yet. One of that name is replaced,
        in place when the configuration is the same. Keys or shapes that do not fit are an AdapterError that names them,
        and everything stays as it was. The tensors are copied.
        """
        if kwargs:
            raise ConfigError(f"add_adapter_to_model has no argument {next(iter(kwargs))!r}; it takes state_dict")
        self._adapters.add(adapter_name, config_or_dir, state_dict)

    def remove_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError."""
        self._adapters.remove(adapter_name)

    def update_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Replace all weights of the model by copies of these, under the names of its state dict (adapters stay).

        Missing or unexpected keys, and wrong shapes, are a WeightSyncError that names them; nothing is changed then.
        """
        self._weights.load(state_dict, WeightSyncError)

    def _requests(self, index: int, prompt: tuple[int, ...], params: SamplingParams, num_samples: int) -> list[Request]:
        endings = Endings.of(params, self._eos_ids, self._special_ids)
        self._check(index, prompt, params, endings)
        seed = fresh_seed() if params.seed is None else params.seed
        return [Request(prompt, params, endings, seed, sample) for sample in range(num_samples)]

    def _check(self, index: int, prompt: tuple[int, ...], params: SamplingParams, endings: Endings) -> None:
        size, positions = self._model.vocab_size, self._model.positions
        if not 0 <= min(prompt) <= max(prompt) < size:
            outside = next(token for token in prompt if not 0 <= token < size)
            raise DataError(f"input {index} has the token id {outside}; this model's vocabulary is 0 to {size - 1}")
        if positions is not None and len(prompt) + params.max_tokens > positions:
            raise DataError(
                f"input {index} has {len(prompt)} tokens and max_tokens is {params.max_tokens}, together more than the "
                f"{positions} positions of this model; shorten the prompt or lower max_tokens"
            )
        for field, ids in (("stop_token_ids", params.stop_ids), ("allowed_token_ids", params.allowed_token_ids or ())):
            if ids and max(ids) >= size:
                raise ConfigError(f"SamplingParams.{field} has {max(ids)}; this model's vocabulary is 0 to {size - 1}")
        allowed = params.allowed_token_ids
        if params.min_tokens and allowed is not None and set(allowed) <= set(endings.ids):
            raise ConfigError(
                f"SamplingParams.min_tokens is {params.min_tokens}, but every allowed token ends the response, "
                "so that no first token is left"
            )

    def _text(self, tokens: Sequence[int]) -> str:
        return self.template.decode(tokens)

    def _sequences(
        self, requests: Sequence[Request], drawn: Sequence[Drawn], num_samples: int
    ) -> list[SampledSequence]:
        visible = [_visible(request, result) for request, result in zip(requests, drawn, strict=True)]
        texts = self.template.decode_batch(visible)
        return [
            SampledSequence(
                tokens=result.tokens,
                text=text if result.match is None else result.match.text,
                stop_reason="stop" if result.ended else "length",
                logprobs=result.logprobs,
                sampler_logprobs=result.sampler_logprobs,
                prompt_index=place // num_samples,
                sample_index=request.sample_index,
                stopped_by=_stopped_by(request, result),
                top_logprobs=result.top_logprobs,
            )
            for place, (request, result, text) in enumerate(zip(requests, drawn, texts, strict=True))
        ]


def _visible(request: Request, result: Drawn) -> list[int]:
    ended_by_token = result.ended and result.match is None
    return result.tokens[:-1] if ended_by_token else result.tokens


def _stopped_by(request: Request, result: Drawn) -> str | int | None:
    if result.match is not None:
        return result.match.string
    if not result.ended:
        return None
    return request.endings.reported.get(result.tokens[-1], result.tokens[-1])


def _require_samples(num_samples: object) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ConfigError(f"num_samples is {num_samples!r}; it must be an integer >= 1")


def _device(device: str | None, remote_group: str | None) -> torch.device:
    group = None if remote_group is None else current_runtime().group(remote_group)
    name = device or (group.device_type if group is not None else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; it must be 'cpu', 'cuda' or 'cuda:<number>'") from error
    if group is not None and chosen.type != group.device_type:
        raise ConfigError(f"device is {name!r}, but the device group {group.name!r} has {group.device_type!r} devices")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but this machine has no usable CUDA device; use 'cpu'")
    return chosen


def _load_tokenizer(folder: Path) -> Any:
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES):
        raise ModelNotFoundError(f"the folder {str(folder)!r} holds no tokenizer (tokenizer.json, for instance)")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"the folder {str(folder)!r} holds no tokenizer that can be loaded: {error}"
        ) from error


def _eos_ids(module: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """EOS ids of the tokenizer and of the model's generation config, which may have several."""
    listed = getattr(module.generation_config, "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)
