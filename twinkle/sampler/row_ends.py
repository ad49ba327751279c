"""Which rows of a batch end with the token just drawn. R = rows, E = ending token ids."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinkle.sampler.requests import Request
from twinkle.sampler.stopping import Decode, StopMatch, StopStringSearch

NO_TOKEN = -1


class RowEnds:
    """Lengths of the rows that have ended, and why; rows that still grow are alive."""

    def __init__(self, requests: Sequence[Request], text_of: Decode, device: torch.device) -> None:
        self.lengths = [0] * len(requests)
        self.ended_early = [False] * len(requests)
        self.matches: list[StopMatch | None] = [None] * len(requests)
        self._limits = [request.params.max_tokens for request in requests]
        self._ids_RE = _padded([request.endings.ids for request in requests], device)
        self._searches = {
            row: StopStringSearch(request.endings.strings, text_of, request.params.min_tokens)
            for row, request in enumerate(requests)
            if request.endings.strings
        }

    def alive(self, rows: Sequence[int]) -> list[int]:
        """Positions in ``rows`` of those that have not ended."""
        return [position for position, row in enumerate(rows) if self.lengths[row] == 0]

    def take(self, rows: Sequence[int], tokens_R: Tensor, drawn: int) -> bool:
        """Note the ``drawn``-th token of each row; whether any row ended with it."""
        early = set(self._early(rows, tokens_R))
        full = [row for row in rows if self._limits[row] == drawn] if drawn in self._limits else []
        any_ended = False
        for row in [*early, *full]:
            if self.lengths[row] == 0:
                self.lengths[row], self.ended_early[row], any_ended = drawn, row in early, True
        return any_ended

    def select(self, positions: Tensor) -> None:
        """Keep the rows at these positions of the batch only."""
        self._ids_RE = None if self._ids_RE is None else self._ids_RE[positions]

    def _early(self, rows: Sequence[int], tokens_R: Tensor) -> list[int]:
        ended = []
        if self._ids_RE is not None:
            hits = (tokens_R[:, None] == self._ids_RE).any(-1).nonzero().flatten().tolist()
            ended += [rows[position] for position in hits]
        if self._searches:
            for row, token in zip(rows, tokens_R.tolist(), strict=True):
                if row in self._searches and self.lengths[row] == 0 and self._search(row, token):
                    ended.append(row)
        return ended

    def _search(self, row: int, token: int) -> bool:
        match = self._searches[row].push(token)
        self.matches[row] = match
        return match is not None


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> Tensor | None:
    longest = max(map(len, ids))
    if longest == 0:
        return None
    return torch.tensor([[*row, *[NO_TOKEN] * (longest - len(row))] for row in ids], device=device)
