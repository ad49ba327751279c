"""Drawing: from the logits of a batch's rows to their tokens, and what becomes of each row.

Rows have places: a row that ended leaves its place, the next request takes it, and all others stay where they are.
R = places, T = tokens drawn, V = vocabulary. What is drawn is kept on the host, one transfer for each token.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinkle.errors import RunError
from twinkle.sampler.choosing import Choice, Forbidden, RowControls, choose
from twinkle.sampler.engine import Outcome
from twinkle.sampler.requests import Drawn, Request
from twinkle.sampler.stopping import Decode, StopMatch, StopStringSearch
from twinkle.sampler.uniforms import uniforms

UNIFORMS_AHEAD = 64
NO_TOKEN = -1


class Drawing:
    """The rows of a batch as what they draw; ``text_of`` turns tokens into the text of stop strings."""

    def __init__(self, vocab_size: int, device: torch.device, text_of: Decode) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._text_of = text_of
        self._rows: list[Request] = []
        self.alive_R = np.zeros(0, bool)
        self._counts_R = np.zeros(0, np.int64)
        self._limits_R = np.zeros(0, np.int64)
        self._endings_RE = np.full((0, 1), NO_TOKEN)
        self._numbers_RT = np.zeros((0, UNIFORMS_AHEAD))
        self._record = _Record()
        self._searches: dict[int, StopStringSearch] = {}

    @property
    def places(self) -> int:
        """How many rows the batch has, those that have ended among them."""
        return len(self._rows)

    @property
    def ahead(self) -> int:
        """How many more tokens any row may draw, at most."""
        return int(((self._limits_R - self._counts_R) * self.alive_R).max(initial=0))

    def requests(self) -> list[Request]:
        """The request at each place; where it has ended, what was there last."""
        return list(self._rows)

    @property
    def busy(self) -> bool:
        """Whether any row still draws."""
        return bool(self.alive_R.any())

    def free(self) -> list[int]:
        """Places of rows that have ended."""
        return [int(place) for place in (~self.alive_R).nonzero()[0]]

    def places_for(self, count: int) -> list[int]:
        """So many places: free ones, then the next behind the last."""
        free = self.free()[:count]
        return free + list(range(self.places, self.places + count - len(free)))

    def enter(self, places: Sequence[int], requests: Sequence[Request], least: int = 1) -> None:
        """Let requests begin at these places (see places_for); have ``least`` places at least."""
        more = max(*places, self.places - 1, least - 1) + 1 - self.places
        self._extend(more, requests[0])
        at = np.array(places)
        for place, request in zip(places, requests, strict=True):
            self._rows[place] = request
            self._searches.pop(place, None)
            if request.endings.strings:
                self._searches[place] = StopStringSearch(
                    request.endings.strings, self._text_of, request.params.min_tokens
                )
        self.alive_R[at] = True
        self._counts_R[at] = 0
        self._limits_R[at] = [request.params.max_tokens for request in requests]
        self._endings_RE = _with_endings(self._endings_RE, at, requests)
        needed = min(UNIFORMS_AHEAD, max(request.params.max_tokens for request in requests))
        self._numbers_RT[at, :needed] = uniforms([_key(request) for request in requests], 0, needed)
        self._record.enter(at, requests)
        self._read_params()

    def draw(self, logits_RV: Tensor) -> tuple[Tensor, list[tuple[Request, Outcome]]]:
        """A token for each row [R], and the requests that end with it."""
        counts_R, everyone_R = self._counts_R, np.arange(self.places)
        numbers_R = torch.from_numpy(self._numbers_RT[everyone_R, counts_R % UNIFORMS_AHEAD]).to(self._device)
        choice = choose(logits_RV, self._controls, numbers_R, self._forbidden.at(counts_R))
        tokens_R, finite_R = self._record.write(everyone_R, counts_R, choice)
        counts_R += self.alive_R
        stopped_R = (tokens_R[:, None] == self._endings_RE).any(1)
        matches = self._search(tokens_R) if self._searches else {}
        if matches:
            stopped_R[list(matches)] = True
        over_R = self.alive_R & (stopped_R | (counts_R >= self._limits_R) | ~finite_R)
        ended: list[tuple[Request, Outcome]] = []
        if over_R.any():
            ended = self._outcomes(over_R.nonzero()[0], stopped_R, finite_R, matches)
            self._leave(over_R)
        self._draw_ahead()
        return choice.tokens_R, ended

    def drop(self, requests: set[Request]) -> None:
        """Let the rows of these requests end without a result."""
        self._leave(np.array([request in requests for request in self._rows], bool))

    def select(self, places: Sequence[int]) -> None:
        """Keep these places only, in this order."""
        at = np.array(places)
        self._searches = {new: self._searches[old] for new, old in enumerate(places) if old in self._searches}
        self._rows = [self._rows[place] for place in places]
        self.alive_R, self._counts_R, self._limits_R = self.alive_R[at], self._counts_R[at], self._limits_R[at]
        self._endings_RE, self._numbers_RT = self._endings_RE[at], self._numbers_RT[at]
        self._record.select(at)
        self._read_params()

    def _extend(self, more: int, filler: Request) -> None:
        if more == 0:
            return
        self._rows += [filler] * more
        self.alive_R = np.concatenate([self.alive_R, np.zeros(more, bool)])
        self._counts_R = np.concatenate([self._counts_R, np.zeros(more, np.int64)])
        self._limits_R = np.concatenate([self._limits_R, np.zeros(more, np.int64)])
        self._endings_RE = np.concatenate([self._endings_RE, np.full((more, self._endings_RE.shape[1]), NO_TOKEN)])
        self._numbers_RT = np.concatenate([self._numbers_RT, np.zeros((more, UNIFORMS_AHEAD))])
        self._record.extend(more)

    def _leave(self, over_R: NDArray[np.bool_]) -> None:
        """An ended row stays in the batch until its place is taken, and draws on without a record."""
        self.alive_R &= ~over_R
        self._counts_R[over_R] = 0
        for place in over_R.nonzero()[0]:
            self._searches.pop(int(place), None)

    def _read_params(self) -> None:
        params = [request.params for request in self._rows]
        self._controls = RowControls.of(params, self._device)
        self._forbidden = Forbidden(params, [r.endings.ids for r in self._rows], self._vocab_size, self._device)

    def _search(self, tokens_R: NDArray[np.int64]) -> dict[int, StopMatch]:
        found = {place: search.push(int(tokens_R[place])) for place, search in self._searches.items()}
        return {place: match for place, match in found.items() if match is not None}

    def _draw_ahead(self) -> None:
        spent_R = (self._counts_R % UNIFORMS_AHEAD == 0) & (self._counts_R > 0)
        for place in spent_R.nonzero()[0] if spent_R.any() else ():
            start = int(self._counts_R[place])
            self._numbers_RT[place] = uniforms([_key(self._rows[place])], start, UNIFORMS_AHEAD)[0]

    def _outcomes(
        self,
        places: NDArray[np.int64],
        stopped_R: NDArray[np.bool_],
        finite_R: NDArray[np.bool_],
        matches: dict[int, StopMatch],
    ) -> list[tuple[Request, Outcome]]:
        drawn = self._record.drawn(places, self._counts_R[places], stopped_R[places], matches)
        damaged = RunError("the model gave logits that are not finite numbers; its weights are probably damaged")
        return [
            (self._rows[place], outcome if finite_R[place] else damaged)
            for place, outcome in zip(places.tolist(), drawn, strict=True)
        ]


class _Record:
    """What the rows have drawn so far."""

    def __init__(self) -> None:
        self._tokens_RT = np.zeros((0, 0), np.int64)
        self._logprobs_KRT = np.zeros((2, 0, 0))
        self._top: list[list[tuple[list[int], list[float]]]] = []
        self._reported: list[int | None] = []

    def extend(self, more: int) -> None:
        places, length = self._tokens_RT.shape
        self._grow(places + more, length)
        self._top += [[] for _ in range(more)]
        self._reported += [None] * more

    def enter(self, places: NDArray[np.int64], requests: Sequence[Request]) -> None:
        """Forget what was at these places, and have room for what comes."""
        longest = max(request.params.max_tokens for request in requests)
        if longest > self._tokens_RT.shape[1]:
            self._grow(len(self._tokens_RT), longest)
        for place, request in zip(places, requests, strict=True):
            self._top[place] = []
            self._reported[place] = request.params.logprobs

    def select(self, places: NDArray[np.int64]) -> None:
        self._tokens_RT = self._tokens_RT[places]
        self._logprobs_KRT = self._logprobs_KRT[:, places]
        self._top = [self._top[place] for place in places]
        self._reported = [self._reported[place] for place in places]

    def write(
        self, rows_R: NDArray[np.int64], columns_R: NDArray[np.int64], choice: Choice
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Keep a token of each row; the tokens, and whether their log-probabilities are finite."""
        tokens_R, logprobs_R, sampler_logprobs_R = _on_host(choice)
        self._tokens_RT[rows_R, columns_R] = tokens_R
        self._logprobs_KRT[0, rows_R, columns_R] = logprobs_R
        self._logprobs_KRT[1, rows_R, columns_R] = sampler_logprobs_R
        most = max((count for count in self._reported if count is not None), default=None)
        if most is not None:
            logp_RK, ids_RK = choice.raw_logp_RV.topk(min(most, choice.raw_logp_RV.shape[1]), dim=-1)
            for place, report in enumerate(zip(ids_RK.tolist(), logp_RK.tolist(), strict=True)):
                if self._reported[place] is not None:
                    self._top[place].append(report)
        return tokens_R, np.isfinite(logprobs_R)

    def drawn(
        self,
        places: NDArray[np.int64],
        lengths: NDArray[np.int64],
        stopped: NDArray[np.bool_],
        matches: dict[int, StopMatch],
    ) -> list[Drawn]:
        """What the rows at these places got."""
        longest = int(lengths.max())
        tokens_RT = self._tokens_RT[places, :longest].tolist()
        logprobs_KRT = self._logprobs_KRT[:, places, :longest].tolist()
        rows = zip(places.tolist(), lengths.tolist(), stopped.tolist(), tokens_RT, *logprobs_KRT, strict=True)
        return [
            Drawn(
                tokens[:length],
                logprobs[:length],
                sampler_logprobs[:length],
                ended,
                matches.get(place),
                self._reports(place, tokens[:length], logprobs),
            )
            for place, length, ended, tokens, logprobs, sampler_logprobs in rows
        ]

    def _reports(self, place: int, tokens: list[int], logprobs: list[float]) -> list[dict[int, float]] | None:
        count = self._reported[place]
        if count is None:
            return None
        return [
            dict(zip(ids[:count], logps[:count], strict=True)) | {token: logprob}
            for (ids, logps), token, logprob in zip(self._top[place], tokens, logprobs, strict=False)
        ]

    def _grow(self, places: int, length: int) -> None:
        tokens_RT, logprobs_KRT = self._tokens_RT, self._logprobs_KRT
        rows, columns = tokens_RT.shape
        self._tokens_RT = np.zeros((places, length), np.int64)
        self._tokens_RT[:rows, :columns] = tokens_RT
        self._logprobs_KRT = np.zeros((2, places, length))
        self._logprobs_KRT[:, :rows, :columns] = logprobs_KRT


def _on_host(choice: Choice) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    if choice.tokens_R.device.type == "cpu":
        return choice.tokens_R.numpy(), choice.logprobs_R.numpy(), choice.sampler_logprobs_R.numpy()
    drawn = torch.stack([choice.tokens_R.double(), choice.logprobs_R, choice.sampler_logprobs_R]).cpu().numpy()
    return drawn[0].astype(np.int64), drawn[1], drawn[2]


def _key(request: Request) -> tuple[int, int]:
    return request.seed, request.sample_index


def _with_endings(
    endings_RE: NDArray[np.int64], places: NDArray[np.int64], requests: Sequence[Request]
) -> NDArray[np.int64]:
    most = max(len(request.endings.ids) for request in requests)
    if most > endings_RE.shape[1]:
        more = np.full((len(endings_RE), most - endings_RE.shape[1]), NO_TOKEN)
        endings_RE = np.concatenate([endings_RE, more], axis=1)
    width = endings_RE.shape[1]
    endings_RE[places] = [
        [*request.endings.ids, *[NO_TOKEN] * (width - len(request.endings.ids))] for request in requests
    ]
    return endings_RE
