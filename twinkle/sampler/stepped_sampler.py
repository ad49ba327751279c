"""A sampler over an engine that works step by step: calls, streams, deadlines and aborts are all here.

An engine of your own needs ``add``, ``step``, ``drop`` and ``busy`` (engine.py) and nothing else; docs/samplers.md
shows one.
"""

import time
from collections.abc import Iterator
from typing import Any

from twinkle.data_format import SampledSequence, SampleResponse
from twinkle.errors import AdapterError, ConfigError
from twinkle.sampler.base import Inputs, Params, Sampler
from twinkle.sampler.engine import Engine
from twinkle.sampler.engine_loop import Call, EngineLoop
from twinkle.sampler.requests import ModelLimits, requests_of, sequences_of
from twinkle.template import Template

# An actor of a sampler serves so many calls at once; they share one batch.
CALLS_AT_ONCE = 64


class SequenceStream(Iterator[SampledSequence]):
    """The sequences of a call as they end; ``close`` aborts the rest, as does forgetting the stream."""

    def __init__(self, loop: EngineLoop, call: Call, template: Template, deadline: float | None) -> None:
        self._loop = loop
        self._call = call
        self._template = template
        self._deadline = deadline

    def __next__(self) -> SampledSequence:
        try:
            result = self._loop.next(self._call, self._deadline)
        except BaseException:
            self.close()
            raise
        if result is None:
            raise StopIteration
        return sequences_of([result], self._template)[0]

    def close(self) -> None:
        """Abort what is still running; twice is once."""
        self._loop.cancel(self._call)

    def __del__(self) -> None:
        self.close()


class SteppedSampler(Sampler):
    """Serves any number of threads from one engine; ``limits`` are what requests are checked against."""

    def __init__(self, tokenizer: Any, engine: Engine, limits: ModelLimits) -> None:
        super().__init__(tokenizer)
        self.limits = limits
        self._loop = EngineLoop(engine, type(self).__name__)

    def sample(
        self,
        inputs: Inputs,
        sampling_params: Params = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
        timeout_s: float | None = None,
    ) -> SampleResponse:
        """``num_samples`` responses to each input, prompt by prompt; see Sampler.sample."""
        call, deadline = self._submit(inputs, sampling_params, adapter_name, num_samples, timeout_s)
        try:
            results = self._loop.results(call, deadline)
        except BaseException:
            self._loop.cancel(call)
            raise
        results.sort(key=lambda result: (result[0].prompt_index, result[0].sample_index))
        return SampleResponse(sequences_of(results, self.template))

    def stream(
        self,
        inputs: Inputs,
        sampling_params: Params = None,
        adapter_name: str = "",
        *,
        num_samples: int = 1,
        timeout_s: float | None = None,
    ) -> SequenceStream:
        """The sequences of ``sample``, each as soon as it has ended; see Sampler.stream. Wrong input is told at once,
        and the engine works on whether or not the next sequence is asked for."""
        call, deadline = self._submit(inputs, sampling_params, adapter_name, num_samples, timeout_s)
        return SequenceStream(self._loop, call, self.template, deadline)

    def abort(self) -> None:
        """End every call in flight with SampleAbortedError; later calls are served as ever."""
        self._loop.abort()

    def close(self) -> None:
        """End every call in flight with SampleAbortedError; later ones are refused with it too. Twice is once."""
        self._loop.close()

    def _pin(self, adapter_name: str) -> Any:
        """What a request of this adapter carries to the engine; it stays as it is until ``_unpin``."""
        if adapter_name:
            known = ", ".join(map(repr, self.adapter_names)) or "none; add one with add_adapter_to_model"
            raise AdapterError(f"unknown adapter {adapter_name!r}; known adapters: {known}")
        return None

    def _unpin(self, adapter: Any) -> None:
        """The engine has no request with this adapter any more that ``_pin`` gave."""

    def _submit(
        self, inputs: Inputs, params: Params, adapter_name: str, num_samples: int, timeout_s: float | None
    ) -> tuple[Call, float | None]:
        deadline = _deadline(timeout_s)
        adapter = self._pin(adapter_name)
        try:
            requests = requests_of(inputs, params, num_samples, self.template, self.limits, adapter)
            return self._loop.submit(requests, lambda: self._unpin(adapter)), deadline
        except BaseException:
            self._unpin(adapter)
            raise


def _deadline(timeout_s: object) -> float | None:
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise ConfigError(f"timeout_s is {timeout_s!r}; it must be a number of seconds > 0, or None for no limit")
    return time.monotonic() + timeout_s
