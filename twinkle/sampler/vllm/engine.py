"""The engine as its sampler sees it: requests in, results out, whatever happens to the process behind it."""

import contextlib
import os
import select
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from twinkle.errors import EngineLostError, RunError
from twinkle.sampler.engine import Outcome
from twinkle.sampler.requests import Drawn, Request
from twinkle.sampler.vllm.arena import Arena, Layout
from twinkle.sampler.vllm.child import Child, ChildGone
from twinkle.sampler.vllm.messages import RAW, REPORTED, SAMPLED, Add, Drop, Ended, Job, Settings

# Deaths of the engine that one request may see before it is the one that is given up.
MOST_DEATHS = 2
# New calls come through ``nudge`` at once; this is how long aborts and changes may wait for a step to return.
POLL_MS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One version of an adapter, under the number that the engine knows it by; kept for an engine that is replaced."""

    number: int
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class ProcessEngine:
    """An engine of vLLM in a child process, replaced when it dies. Implements twinkle.sampler.engine.Engine.

    ``deaths`` counts the replaced ones.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: Child | None = Child(settings)
        self.ready = self._child.ready
        self.deaths = 0
        self._jobs: dict[int, Request] = {}
        self._numbers: dict[Request, int] = {}
        self._seen: dict[Request, int] = {}
        self._counted = 0
        self._failed: list[tuple[Request, Outcome]] = []
        self._adapters: dict[int, Weights] = {}
        self._retired: deque[int] = deque()
        self._adapter_arena = Arena("adapter")
        self._weights_arena = Arena("weights")
        self._weights: Layout | None = None
        self._asleep = False
        self._nudged, self._nudge = os.pipe()
        os.set_blocking(self._nudge, False)
        os.set_blocking(self._nudged, False)

    @property
    def sleep_mode(self) -> bool:
        """Whether the engine was started so that it can sleep."""
        return bool(self._settings.engine_args.get("enable_sleep_mode"))

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._jobs or self._failed)

    def add(self, requests: Sequence[Request]) -> None:
        """Take up requests."""
        for request in requests:
            self._counted += 1
            self._jobs[self._counted] = request
            self._numbers[request] = self._counted
        self._drop_retired()
        self._tell(Add([self._job(request) for request in requests]))

    def step(self) -> list[tuple[Request, Outcome]]:
        """Wait a moment for responses that end; those that did, and those that are given up."""
        ended: list[Ended] = []
        try:
            if not self._failed:
                ended = self._wait()
        except ChildGone as gone:
            self._replace(gone)
        failed, self._failed = self._failed, []
        return failed + [self._outcome(one) for one in ended if one.number in self._jobs]

    def drop(self, requests: Collection[Request]) -> None:
        """Forget these."""
        numbers = [self._numbers[request] for request in dict.fromkeys(requests) if request in self._numbers]
        for number in numbers:
            self._forget(number)
        self._tell(Drop(numbers, []))

    def nudge(self) -> None:
        """Let a step that waits return, because there is something new to take up. From any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full of nudges
            os.write(self._nudge, b"!")

    def add_adapter(self, weights: Weights) -> None:
        """Load an adapter; AdapterError when vLLM cannot."""
        self._drop_retired()
        self._command("add_adapter", lambda child: self._load(child, weights))
        self._adapters[weights.number] = weights

    def retire_adapter(self, number: int) -> None:
        """Forget an adapter that no request needs, before anything else is asked of the engine. From any thread."""
        self._retired.append(number)

    def update_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace all weights, while nothing runs. They are kept in shared memory, for an engine that is replaced."""
        self._weights = self._weights_arena.write(tensors)
        self._command("update_weights", self._load_weights)

    def sleep(self) -> None:
        """Give back the device's memory, while nothing runs."""
        self._command("sleep", lambda child: child.command("sleep"))
        self._asleep = True

    def wake(self) -> None:
        """Take the memory again."""
        self._asleep = False
        self._command("wake", lambda child: child.command("wake"))

    def close(self) -> None:
        """End the process and give back what it shares."""
        if self._child is not None:
            self._child.close()
        self._child = None
        for part in (self._adapter_arena, self._weights_arena):
            part.close()
        for fd in (self._nudged, self._nudge):
            os.close(fd)

    def _drop_retired(self) -> None:
        numbers = [self._retired.popleft() for _ in range(len(self._retired))]
        numbers = [number for number in numbers if self._adapters.pop(number, None) is not None]
        if numbers:
            self._tell(Drop([], numbers))

    def _wait(self) -> list[Ended]:
        child = self._living()
        poll = select.poll()
        for waited in (child.fileno(), self._nudged):
            poll.register(waited, select.POLLIN)
        if self._nudged in dict(poll.poll(POLL_MS)):
            os.read(self._nudged, 65536)
        return child.ended()

    def _job(self, request: Request) -> Job:
        return Job(
            number=self._numbers[request],
            prompt=request.prompt,
            params=request.params,
            ending_ids=request.endings.ids,
            stop_strings=request.endings.strings,
            seed=request.seed,
            sample_index=request.sample_index,
            adapter=0 if request.adapter is None else request.adapter.number,
        )

    def _outcome(self, one: Ended) -> tuple[Request, Outcome]:
        request = self._forget(one.number)
        tokens, raw = one.tokens_T.tolist(), one.logp_TK[:, RAW].tolist()
        if not all(-float("inf") < logprob <= 1e-6 for logprob in raw):
            return request, RunError(
                "the model gave logits that are not finite numbers; its weights are probably damaged"
            )
        drawn = Drawn(
            tokens, raw, one.logp_TK[:, SAMPLED].tolist(), one.ended, one.match, _top(request, one, tokens, raw)
        )
        return request, drawn

    def _forget(self, number: int) -> Request:
        request = self._jobs.pop(number)
        del self._numbers[request]
        self._seen.pop(request, None)
        return request

    def _tell(self, message: Add | Drop) -> None:
        """Send, where a process that died is noticed by the next step and replaced then."""
        try:
            self._living().send(message)
        except ChildGone as gone:
            self._replace(gone)

    def _command(self, name: str, act: Any) -> None:
        for _ in range(MOST_DEATHS):
            try:
                act(self._living())
            except ChildGone as gone:
                last = gone
                self._replace(gone)
            else:
                return
        raise EngineLostError(f"the vLLM engine died {MOST_DEATHS} times while it did {name!r}: {last}")

    def _living(self) -> Child:
        if self._child is None:
            self._child = self._started()
        return self._child

    def _replace(self, gone: ChildGone) -> None:
        """Start another engine, give it what the dead one had, and give up requests that have seen too many die."""
        self.deaths += 1
        assert self._child is not None
        self._child.close()
        self._child = None
        for number, request in list(self._jobs.items()):
            self._seen[request] = self._seen.get(request, 0) + 1
            if self._seen[request] >= MOST_DEATHS:
                self._give_up(number, f"the vLLM engine died {MOST_DEATHS} times while this ran: {gone}")
        try:
            child = self._started()
            child.send(Add([self._job(request) for request in self._jobs.values()]))
        except (ChildGone, EngineLostError) as error:
            for number in list(self._jobs):
                self._give_up(number, f"the vLLM engine died ({gone}) and could not be started again: {error}")
        else:
            self._child = child

    def _started(self) -> Child:
        child = Child(self._settings)
        if self._weights is not None:
            self._load_weights(child)
        for weights in self._adapters.values():
            self._load(child, weights)
        if self._asleep:
            child.command("sleep")
        return child

    def _give_up(self, number: int, why: str) -> None:
        self._failed.append((self._forget(number), EngineLostError(why)))

    def _load(self, child: Child, weights: Weights) -> None:
        layout = self._adapter_arena.write(weights.tensors)
        child.command("add_adapter", weights.number, dict(weights.config), self._adapter_arena.path, layout)

    def _load_weights(self, child: Child) -> None:
        child.command("update_weights", self._weights_arena.path, self._weights)


def _top(request: Request, one: Ended, tokens: list[int], raw: list[float]) -> list[dict[int, float]] | None:
    if request.params.logprobs is None:
        return None
    if one.ids_TK is None:
        return [{token: logprob} for token, logprob in zip(tokens, raw, strict=True)]
    reported = zip(one.ids_TK.tolist(), one.logp_TK[:, REPORTED:].tolist(), tokens, raw, strict=True)
    return [dict(zip(ids, logps, strict=True)) | {token: logprob} for ids, logps, token, logprob in reported]
