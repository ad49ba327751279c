"""The decoding loop: all samples of a batch grow by one token per forward until each has ended.

R = rows (samples), T = tokens drawn, V = vocabulary, K = reported log-probabilities.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinkle.errors import RunError
from twinkle.sampler.causal_model import CachedRows, CausalModel
from twinkle.sampler.choosing import Choice, Forbidden, RowControls, choose
from twinkle.sampler.requests import Drawn, Request
from twinkle.sampler.row_ends import RowEnds
from twinkle.sampler.stopping import Decode
from twinkle.sampler.uniforms import uniforms

# On a CPU the kernels for 1 to 3 rows add up in another order than those for 4 and more.
CPU_SLOTS = 4
UNIFORMS_AHEAD = 64


def decode(model: CausalModel, requests: Sequence[Request], text_of: Decode) -> list[Drawn]:
    """Draw the responses of all requests in one batch; ``text_of`` turns tokens into the text of stop strings."""
    slots = CPU_SLOTS if model.device.type == "cpu" else 1
    padded = [*requests, *[requests[0]] * (slots - len(requests))]
    return _Batch(model, padded, slots, text_of).run()[: len(requests)]


class _Batch:
    """State of the loop. ``_rows[position]`` is the request at a position of the batch, from which ended rows leave."""

    def __init__(self, model: CausalModel, requests: Sequence[Request], slots: int, text_of: Decode) -> None:
        params = [request.params for request in requests]
        self._requests = requests
        self._slots = slots
        self._longest = max(p.max_tokens for p in params)
        self._growing = CachedRows(model, [request.prompt for request in requests], self._longest, slots)
        self._controls = RowControls.of(params, model.device)
        self._forbidden = Forbidden(params, [r.endings.ids for r in requests], model.vocab_size, model.device)
        self._ends = RowEnds(requests, text_of, model.device)
        self._uniforms = _Uniforms(requests, min(UNIFORMS_AHEAD, self._longest), model.device)
        self._record = _Record(requests, self._longest, model.device)
        self._rows = list(range(len(requests)))

    def run(self) -> list[Drawn]:
        """Draw until every row has ended."""
        for token in range(self._longest):
            choice = self._choose(token)
            self._record.write(token, choice)
            if self._ends.take(self._rows, choice.tokens_R, token + 1):
                alive = self._ends.alive(self._rows)
                if not alive:
                    break
                if max(len(alive), self._slots) <= len(self._rows) // 2:
                    kept = self._leave(alive)
                    self._growing.grow(choice.tokens_R[kept])
                    continue
            self._growing.grow(choice.tokens_R)
        return self._record.drawn(self._ends)

    def _choose(self, token: int) -> Choice:
        uniforms_R = self._uniforms.at(token)
        return choose(self._growing.logits_RV, self._controls, uniforms_R, self._forbidden.at(token))

    def _leave(self, alive: list[int]) -> Tensor:
        """Go on with the living rows (and, up to the fewest slots, some that have ended); their positions."""
        ended = [position for position in range(len(self._rows)) if position not in set(alive)]
        kept = sorted(alive + ended[: max(0, self._slots - len(alive))])
        positions = torch.tensor(kept, device=self._growing.logits_RV.device)
        self._rows = [self._rows[position] for position in kept]
        self._controls = self._controls.select(positions)
        for part in (self._growing, self._forbidden, self._ends, self._uniforms, self._record):
            part.select(positions)
        return positions


class _Uniforms:
    """The uniform numbers of the rows, some tokens ahead."""

    def __init__(self, requests: Sequence[Request], ahead: int, device: torch.device) -> None:
        self._keys = [(request.seed, request.sample_index) for request in requests]
        self._ahead = ahead
        self._device = device
        self._numbers_RT: NDArray[np.float64] = np.empty((len(requests), 0))
        self._start = 0

    def at(self, token: int) -> Tensor:
        if token >= self._start + self._numbers_RT.shape[1]:
            self._start, self._numbers_RT = token, uniforms(self._keys, token, self._ahead)
        return torch.from_numpy(self._numbers_RT[:, token - self._start]).to(self._device)

    def select(self, positions: Tensor) -> None:
        kept = positions.tolist()
        self._keys = [self._keys[position] for position in kept]
        self._numbers_RT = self._numbers_RT[kept]


class _Record:
    """Everything drawn so far, by request."""

    def __init__(self, requests: Sequence[Request], longest: int, device: torch.device) -> None:
        shape = (len(requests), longest)
        self._tokens_RT = torch.zeros(shape, dtype=torch.long, device=device)
        self._logprobs_RT = torch.zeros(shape, dtype=torch.float64, device=device)
        self._sampler_logprobs_RT = torch.zeros(shape, dtype=torch.float64, device=device)
        self._rows_R = torch.arange(len(requests), device=device)
        self._reported = [request.params.logprobs for request in requests]
        self._most = max((count for count in self._reported if count is not None), default=None)
        self._top: list[tuple[list[int], list[list[int]], list[list[float]]]] = []

    def write(self, token: int, choice: Choice) -> None:
        self._tokens_RT[self._rows_R, token] = choice.tokens_R
        self._logprobs_RT[self._rows_R, token] = choice.logprobs_R
        self._sampler_logprobs_RT[self._rows_R, token] = choice.sampler_logprobs_R
        if self._most is not None:
            count = min(self._most, choice.raw_logp_RV.shape[1])
            logp_RK, ids_RK = choice.raw_logp_RV.topk(count, dim=-1)
            self._top.append((self._rows_R.tolist(), ids_RK.tolist(), logp_RK.tolist()))

    def select(self, positions: Tensor) -> None:
        self._rows_R = self._rows_R[positions]

    def drawn(self, ends: RowEnds) -> list[Drawn]:
        """What each request got, cut where it ended."""
        tokens, logprobs = self._tokens_RT.tolist(), self._logprobs_RT.tolist()
        sampler_logprobs = self._sampler_logprobs_RT.tolist()
        if not torch.isfinite(self._logprobs_RT).all():
            raise RunError("the model gave logits that are not finite numbers; its weights are probably damaged")
        return [
            Drawn(
                tokens=tokens[row][:length],
                logprobs=logprobs[row][:length],
                sampler_logprobs=sampler_logprobs[row][:length],
                ended=ends.ended_early[row],
                match=ends.matches[row],
                top_logprobs=self._top_of(row, tokens[row][:length], logprobs[row]),
            )
            for row, length in enumerate(ends.lengths)
        ]

    def _top_of(self, row: int, tokens: list[int], logprobs: list[float]) -> list[dict[int, float]] | None:
        count = self._reported[row]
        if count is None:
            return None
        reports = []
        for (rows, ids, logps), token, logprob in zip(self._top, tokens, logprobs, strict=False):
            at = rows.index(row)
            reports.append(dict(zip(ids[at][:count], logps[at][:count], strict=True)) | {token: logprob})
        return reports
