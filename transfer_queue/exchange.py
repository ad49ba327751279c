"""Client calls written once: as steps that ask and are answered, carried out either blocking or on asyncio."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from transfer_queue import wire

GRACE_S = 5.0
"""How much longer than the controller a client waits where both wait: the controller's own error says more."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its body and frames, the reply that is expected, how long it may take, and what it waits for.

    Where no reply is `expected`, the message is sent and that is all. `maps`: what is read stays mapped after the call.
    `unheard` is told the session and the number of a request whose answer was never heard; `after` these, in their
    session, another may be asked.
    """

    expected: type[wire.ReplyBody] | None
    body: wire.Body
    frames: Sequence[Any]
    timeout_s: float
    waits: Callable[[], str]
    maps: bool = False
    unheard: Callable[[int, int], None] | None = None
    after: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a thread does meanwhile; the step is sent its result. It ends by itself, in `timeout_s` at the latest."""

    future: Future[Any]
    timeout_s: float


Answer = tuple[Any, list[Any]]
"""The body and the frames of a reply."""

ResultT = TypeVar("ResultT")
Steps = Generator[Ask | Work, Any, ResultT]
"""A call: it yields what it asks, is sent what was answered (or thrown what went wrong), and returns its result."""

P = ParamSpec("P")


class Caller(Protocol):
    """Who can carry out steps."""

    def carry_out(self, steps: Steps[ResultT]) -> ResultT: ...

    async def carry_out_async(self, steps: Steps[ResultT]) -> ResultT: ...


ClientT = TypeVar("ClientT", bound=Caller)


def blocking(call: Callable[Concatenate[ClientT, P], Steps[ResultT]]) -> Callable[Concatenate[ClientT, P], ResultT]:
    """The call as a method that returns when it is done."""

    @functools.wraps(call)
    def method(self: ClientT, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return self.carry_out(call(self, *args, **kwargs))

    return method


def awaiting(
    call: Callable[Concatenate[ClientT, P], Steps[ResultT]],
) -> Callable[Concatenate[ClientT, P], Awaitable[ResultT]]:
    """The call as a coroutine; cancelling it closes its connection."""

    @functools.wraps(call)
    async def method(self: ClientT, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return await self.carry_out_async(call(self, *args, **kwargs))

    return method
