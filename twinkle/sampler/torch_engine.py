"""Continuous batching: requests enter the running batch as others leave it.

Requests whose weights can share a forward share a batch (see adapters.py); each other adapter has one of its own, and
the batches take turns.
"""

from collections import deque
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from twinkle.sampler.adapters import Adapters, LoadedAdapter
from twinkle.sampler.causal_model import CachedRows, CausalModel
from twinkle.sampler.decoding import Drawing
from twinkle.sampler.engine import Outcome
from twinkle.sampler.requests import Request
from twinkle.sampler.stopping import Decode

# A prompt is read in a forward of its own, so that they are read some at a time when all places are taken.
ENTER_TOGETHER = 8


class TorchEngine:
    """Draws for requests in batches of at most ``max_rows`` rows; ``text_of`` as in Drawing."""

    def __init__(self, model: CausalModel, adapters: Adapters, text_of: Decode, max_rows: int) -> None:
        self._model = model
        self._adapters = adapters
        self._text_of = text_of
        self._max_rows = max_rows
        self._batches: dict[str, _Batch] = {}

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._batches)

    def add(self, requests: Sequence[Request]) -> None:
        """Take up requests, to be served first come first served."""
        for request in requests:
            key = self._adapters.batch_of(request.adapter)
            if key not in self._batches:
                self._batches[key] = _Batch(self._model, self._adapters, self._text_of, self._max_rows)
            self._batches[key].waiting.append(request)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Outcome]]:
        """One token for each running request, after those for which there is a place have entered."""
        ended: list[tuple[Request, Outcome]] = []
        for key, batch in list(self._batches.items()):
            ended += batch.step()
            if batch.done:
                del self._batches[key]
        return ended

    def drop(self, requests: Collection[Request]) -> None:
        """Forget these requests, waiting or running."""
        gone = set(requests)
        for key, batch in list(self._batches.items()):
            batch.drop(gone)
            if batch.done:
                del self._batches[key]


class _Batch:
    """The rows of a batch as what they draw and as what the model keeps of them, place by place."""

    def __init__(self, model: CausalModel, adapters: Adapters, text_of: Decode, max_rows: int) -> None:
        self.waiting: deque[Request] = deque()
        self._adapters = adapters
        self._least = model.least_rows
        self._max_rows = max(max_rows, self._least)
        self._grown = CachedRows(model)
        self._drawing = Drawing(model.vocab_size, model.device, text_of)
        self._running = 0
        self._row_adapters: list[LoadedAdapter | None] = []

    @property
    def done(self) -> bool:
        return not self.waiting and not self._running

    def step(self) -> list[tuple[Request, Outcome]]:
        self._enter()
        assert self._grown.logits_RV is not None, "a batch has rows: places < max_rows are always filled"
        tokens_R, ended = self._drawing.draw(self._grown.logits_RV)
        if ended:
            self._running -= len(ended)
            self._leave()
        if self._running:
            if ended and not self.waiting and max(self._running, self._least) <= self._drawing.places // 2:
                tokens_R = self._shrink(tokens_R)
            self._adapters.bind(self._row_adapters)
            self._grown.grow(tokens_R, self._drawing.ahead)
        return ended

    def drop(self, gone: set[Request]) -> None:
        self.waiting = deque(request for request in self.waiting if request not in gone)
        self._drawing.drop(gone)
        self._running = int(self._drawing.alive_R.sum())
        self._leave()

    def _enter(self) -> None:
        places = self._max_rows - self._running
        if places < max(1, min(len(self.waiting), self._max_rows // ENTER_TOGETHER)) or not self.waiting:
            return
        new = [self.waiting.popleft() for _ in range(min(places, len(self.waiting)))]
        at = self._drawing.places_for(len(new))
        ahead = max([self._drawing.ahead, *(request.params.max_tokens for request in new)])
        self._grown.enter(at, [r.prompt for r in new], [r.adapter for r in new], self._adapters.bind, ahead)
        self._drawing.enter(at, new, self._least)
        self._running += len(new)
        self._row_adapters = self._adapters_of_rows()

    def _leave(self) -> None:
        """What has ended is not read any more: its adapter may be gone soon."""
        free = self._drawing.free()
        if free and self._running:
            self._grown.release(free)
            self._row_adapters = self._adapters_of_rows()

    def _shrink(self, tokens_R: Tensor) -> Tensor:
        """Once half of the rows have ended and nobody waits, compute the others alone; their tokens."""
        free = self._drawing.free()
        alive = [place for place in range(self._drawing.places) if place not in set(free)]
        kept = sorted(alive + free[: max(0, self._least - len(alive))])
        self._grown.select(kept, self._drawing.ahead)
        self._drawing.select(kept)
        self._row_adapters = self._adapters_of_rows()
        return tokens_R[kept]

    def _adapters_of_rows(self) -> list[LoadedAdapter | None]:
        """The adapter of each place; a free one counts as any other row, so that it never makes a batch a mixed one."""
        requests, alive_R = self._drawing.requests(), self._drawing.alive_R
        any_alive = requests[int(alive_R.argmax())].adapter
        return [r.adapter if alive else any_alive for r, alive in zip(requests, alive_R, strict=True)]
