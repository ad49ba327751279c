"""What every sampler offers, whatever engine it runs on."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from twinkle.data_format import InputFeature, SampleResponse, SamplingParams, Trajectory
from twinkle.errors import AdapterError, WeightSyncError
from twinkle.template import Template, make_template

Inputs = InputFeature | Trajectory | Sequence[InputFeature] | Sequence[Trajectory]


class Sampler(ABC):
    """Samples responses to prompts. ``tokenizer`` is the model's, ``template`` turns conversations into token ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template: Template = make_template("auto", tokenizer)

    @abstractmethod
    def sample(
        self,
        inputs: Inputs,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
    ) -> SampleResponse:
        """``num_samples`` responses to each input, prompt by prompt, under the weights of one adapter ('' = none).

        One SamplingParams serves all inputs; a sequence gives each input its own.
        """

    def add_adapter_to_model(
        self, adapter_name: str, config_or_dir: str | os.PathLike[str] | Mapping[str, Any] | Any, **kwargs: Any
    ) -> None:
        """Add the adapter in a folder, or one of a configuration; an adapter of that name is replaced."""
        raise AdapterError(f"{type(self).__name__} takes no adapters, so {adapter_name!r} cannot be added")

    def update_weights(self, state_dict: Mapping[str, Any]) -> None:
        """Replace all weights of the model by copies of these, under the names of its state dict."""
        raise WeightSyncError(f"{type(self).__name__} cannot replace its weights; train an adapter instead")

    def set_template(self, template_cls: Template | type[Template] | str, **kwargs: Any) -> None:
        """Use another template: an instance, a class, or a name (auto, chat, plain); ``kwargs`` go to the class."""
        self.template = make_template(template_cls, self.tokenizer, **kwargs)
