"""From what a caller hands to a sampler to token ids and parameters, one of each per prompt."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from twinkle.data_format import SamplingParams
from twinkle.errors import ConfigError, DataError
from twinkle.infra.rank import first_item
from twinkle.sampler.base import Inputs
from twinkle.template import Template
from twinkle.template.base import IGNORED_LABEL


def prompt_ids(inputs: Inputs, template: Template) -> list[list[int]]:
    """Token ids of each input; one input alone counts as a list of one. Inputs are read, never changed. Errors name the
    index in the list of the caller, of which a replica has a part."""
    listed = [inputs] if isinstance(inputs, Mapping) else inputs
    if not _is_list(listed) or len(listed) == 0:
        raise DataError(f"inputs is {inputs!r}; it must be a trajectory, an input feature, or a list of at least one")
    return [_ids(index, item, template) for index, item in enumerate(listed, first_item())]


def params_per_prompt(
    sampling_params: SamplingParams | Sequence[SamplingParams] | None, prompts: int
) -> list[SamplingParams]:
    """Parameters of each prompt; one SamplingParams serves all, none means the defaults."""
    if sampling_params is None:
        return [SamplingParams()] * prompts
    if isinstance(sampling_params, SamplingParams):
        return [sampling_params] * prompts
    params = list(sampling_params)
    if len(params) != prompts:
        raise ConfigError(f"sampling_params has {len(params)} entries for {prompts} inputs; give one, or one per input")
    for index, entry in enumerate(params, first_item()):
        _require_params(index, entry)
    return params


def _ids(index: int, item: Any, template: Template) -> list[int]:
    if not isinstance(item, Mapping) or ("messages" in item) == ("input_ids" in item):
        raise DataError(f"input {index} is {item!r:.200}; it must have either 'messages' or 'input_ids'")
    ids = _trajectory_ids(index, item, template) if "messages" in item else _feature_ids(index, item)
    if not ids:
        raise DataError(f"input {index} is an empty prompt; a model needs at least one token (BOS, for instance)")
    return ids


def _trajectory_ids(index: int, item: Mapping[str, Any], template: Template) -> list[int]:
    feature = template.encode(cast(Any, item))
    if item["messages"][-1]["role"] == "assistant":
        raise DataError(f"input {index} ends with an assistant message, so nothing is left to sample; remove it")
    return list(feature["input_ids"])


def _feature_ids(index: int, item: Mapping[str, Any]) -> list[int]:
    ids = _integers(index, "input_ids", item["input_ids"])
    mask = _integers(index, "attention_mask", item.get("attention_mask", [1] * len(ids)))
    labels = _integers(index, "labels", item.get("labels", [IGNORED_LABEL] * len(ids)))
    for name, values in (("attention_mask", mask), ("labels", labels)):
        if len(values) != len(ids):
            raise DataError(f"input {index} has {len(ids)} input_ids but {len(values)} {name}; they must be as many")
    if any(label != IGNORED_LABEL for label in labels):
        raise DataError(
            f"input {index} has labels other than {IGNORED_LABEL}: it holds a response; give its prompt alone"
        )
    return [token for token, kept in zip(ids, mask, strict=True) if kept]


def _integers(index: int, name: str, values: Any) -> list[int]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not _is_list(listed) or not all(isinstance(value, int) for value in listed):
        raise DataError(
            f"input {index} has {name} {values!r:.200}; it must be one list of integers, without a batch axis"
        )
    return list(listed)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _require_params(index: int, entry: object) -> None:
    if not isinstance(entry, SamplingParams):
        raise ConfigError(f"sampling_params[{index}] is {entry!r}; it must be a SamplingParams")
