"""What every sampler offers, whatever engine it runs on."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from twinkle.data_format import InputFeature, SampledSequence, SampleResponse, SamplingParams, Trajectory
from twinkle.errors import AdapterError, ConfigError, WeightSyncError
from twinkle.infra import remote_function
from twinkle.template import Template, make_template

Inputs = InputFeature | Trajectory | Sequence[InputFeature] | Sequence[Trajectory]
Params = SamplingParams | Sequence[SamplingParams] | None
PER_PROMPT = ("inputs", "sampling_params")


def shifted(sequence: SampledSequence, prompts: int) -> SampledSequence:
    """The sequence of a replica, whose first prompt was the caller's prompt of that index."""
    return replace(sequence, prompt_index=sequence.prompt_index + prompts) if prompts else sequence


def joined(responses: Sequence[SampleResponse], offsets: Sequence[int]) -> SampleResponse:
    """One response of the replicas', which have the prompts from these indexes on."""
    pairs = zip(responses, offsets, strict=True)
    return SampleResponse([shifted(sequence, offset) for each, offset in pairs for sequence in each.sequences])


class Sampler(ABC):
    """Samples responses to prompts.

    Every method may be called from several threads at once: calls of ``sample`` and ``stream`` share one running batch.
    Weights and adapters are replaced between calls, never within a response. A call that fails, whatever its error,
    leaves the sampler usable; only after ``close`` and EngineLostError is it gone.

    On a device group (mode 'ray' and ``remote_group``) prompts are shared out over the replicas, and everything else
    happens at each of them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._template: Template = make_template("auto", tokenizer)
        self._tokenizer = tokenizer

    @property
    @remote_function(urgent=True)
    def tokenizer(self) -> Any:
        """The tokenizer of transformers; from a device group comes a copy at each call, so keep it."""
        return self._tokenizer

    @property
    @remote_function(urgent=True)
    def template(self) -> Template:
        """What makes token ids of conversations, and text of responses; from a device group comes a copy at each call,
        which encodes as the replicas do."""
        return self._template

    @abstractmethod
    @remote_function(dispatch="slice_dp", collect=joined, sliced=PER_PROMPT)
    def sample(
        self,
        inputs: Inputs,
        sampling_params: Params = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
        timeout_s: float | None = None,
    ) -> SampleResponse:
        """``num_samples`` responses to each input, prompt by prompt, under the weights of one adapter ('' = none).

        One SamplingParams serves all inputs; a sequence gives each input its own.

        Raises:
            DataError: an input that cannot be sampled from. ConfigError: parameters that cannot be met. AdapterError:
                an unknown adapter. Nothing was sampled then.
            SampleTimeoutError: ``timeout_s`` seconds (None = no limit) were over first; what was running is aborted.
            SampleAbortedError: ``abort`` or ``close`` came first.
            EngineLostError: the engine died and the call could not be repeated.
        """

    @remote_function(dispatch="slice_dp", collect=shifted, sliced=PER_PROMPT, stream=True)
    def stream(
        self,
        inputs: Inputs,
        sampling_params: Params = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
        timeout_s: float | None = None,
    ) -> Iterator[SampledSequence]:
        """The sequences of ``sample``, each as soon as it has ended, in any order; its indexes say which it is.

        The same errors, at the latest with the first ``next``. Closing the iterator aborts what is still running.
        """
        response = self.sample(inputs, sampling_params, adapter_name, num_samples=num_samples, timeout_s=timeout_s)
        yield from response.sequences

    @remote_function(urgent=True)  # noqa: B027 - not every engine can be stopped
    def abort(self) -> None:
        """End every call in flight with SampleAbortedError; later calls are served as ever.

        An engine that serves a call before it takes the next one, and cannot be stopped, has nothing to do here.
        """

    @property
    @remote_function(urgent=True)
    def positions(self) -> int | None:
        """Most tokens that prompt and response may have together; None when there is no bound."""
        return None

    @property
    @remote_function(urgent=True)
    def adapter_names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return []

    @remote_function(urgent=True)
    def add_adapter_to_model(
        self, adapter_name: str, config_or_dir: str | os.PathLike[str] | Mapping[str, Any] | Any, **kwargs: Any
    ) -> None:
        """Add the adapter in a folder, or one of a configuration; an adapter of that name is replaced.

        The argument ``state_dict`` gives tensors in memory under the names of PEFT's files. They are copied.
        """
        raise AdapterError(f"{type(self).__name__} takes no adapters, so {adapter_name!r} cannot be added")

    @remote_function(urgent=True)
    def remove_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError."""
        raise AdapterError(f"{type(self).__name__} takes no adapters, so {adapter_name!r} cannot be removed")

    @remote_function
    def update_weights(self, state_dict: Mapping[str, Any]) -> None:
        """Replace all weights of the model by copies of these, under the names of its state dict; adapters stay."""
        raise WeightSyncError(f"{type(self).__name__} cannot replace its weights; train an adapter instead")

    @remote_function
    def set_template(self, template_cls: Template | type[Template] | str, **kwargs: Any) -> None:
        """Use another template: an instance, a class, or a name (auto, chat, plain); ``kwargs`` go to the class."""
        self._template = make_template(template_cls, self._tokenizer, **kwargs)

    @remote_function
    def sleep(self) -> None:
        """Give back the memory of the device until ``wake``; a ConfigError where the engine or platform cannot."""
        raise ConfigError(f"{type(self).__name__} cannot sleep: it has no device memory to give back; leave sleep out")

    @remote_function
    def wake(self) -> None:
        """Take the memory again; calls that came meanwhile are served then."""
        raise ConfigError(f"{type(self).__name__} cannot wake, because it cannot sleep; leave wake out")

    def close(self) -> None:  # noqa: B027 - not every engine holds something
        """End every call in flight with SampleAbortedError and free what the engine holds; twice is once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
