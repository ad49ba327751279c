"""What an engine does: one batch that requests enter and leave between any two steps. Importable without torch."""

from collections.abc import Collection, Sequence
from typing import Protocol

from twinkle.errors import TwinkleError
from twinkle.sampler.requests import Drawn, Request

Outcome = Drawn | TwinkleError


class Engine(Protocol):
    """A batch that is worked on step by step. Only one thread at a time calls it (see engine_loop.py)."""

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""

    def add(self, requests: Sequence[Request]) -> None:
        """Take up requests, to be served first come first served."""

    def step(self) -> list[tuple[Request, Outcome]]:
        """Bring each running request forward by about a token; those that ended with it, and those that failed."""

    def drop(self, requests: Collection[Request]) -> None:
        """Forget these; those that have ended already are no mistake."""
