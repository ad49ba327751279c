"""One connection to the controller: a request, its reply, a deadline, and a controller that may die meanwhile."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from transfer_queue import wire
from transfer_queue.errors import ConfigurationError, ControllerLostError, ControllerTimeoutError
from transfer_queue.transport.address import address_of
from transfer_queue.transport.async_channel import AsyncChannel, async_channel_to
from transfer_queue.transport.channel import Channel, Late, Lost, channel_to
from transfer_queue.transport.framing import LONGEST_MESSAGE, Frame

CONNECT_S = 2.0
"""A controller on the same machine answers a connection in microseconds; after this nobody listens."""
CONNECT_TCP_S = 10.0
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.5
"""Between two tries to reach a durable controller again: the pause doubles from the first to the longest."""

Answer = tuple[wire.ReplyBody, list[Frame]]


class _Caller:
    """What both kinds of connection have in common: a session, whose requests are numbered, and what errors say.

    A forked child that uses it has a session and a connection of its own.
    """

    def __init__(
        self, info: Mapping[str, Any], longest: int = LONGEST_MESSAGE, after: tuple[int, int] | None = None
    ) -> None:
        self._address, self._longest = address_of(info), longest
        self._connect_s = CONNECT_S if self._address.path is not None else CONNECT_TCP_S
        self._begin_session()
        if after is not None:
            self.session, self.sequence = after
        _callers.add(self)

    def _begin_session(self) -> None:
        self.session, self.sequence = secrets.randbits(63), 0

    def _message(self, client: str, body: wire.Body, frames: Sequence[Frame]) -> list[Frame]:
        self.sequence += 1
        return self._again(client, body, frames, 0.0)

    def _again(self, client: str, body: wire.Body, frames: Sequence[Frame], waited_s: float) -> list[Frame]:
        """The same request for a controller that has come back; what was waited before counts."""
        if waited_s and isinstance(body, wire.Put | wire.GetMeta | wire.Recycle):
            body = msgspec.structs.replace(body, timeout_s=max(0.0, body.timeout_s - waited_s))
        try:
            header = wire.encode(wire.Request(self.sequence, client, body, self.session))
        except (TypeError, OverflowError, UnicodeEncodeError) as error:
            raise ConfigurationError(f"{type(body).__name__} has an argument that cannot be sent: {error}") from error
        return [header, *frames]

    def _answer(self, parts: list[Frame]) -> Answer | None:
        """The reply, unless it answers an earlier request; one that answers no request is the peer's last word."""
        answer = wire.decode_reply(parts[0])
        if answer.sequence == 0:
            self.close()
        elif answer.sequence != self.sequence:
            return None
        return answer.body, parts[1:]

    def _lost(self, lost: Lost, began: float, waits_for: Callable[[], str]) -> ControllerLostError:
        if lost.nobody:
            text = f"nobody listens at {self._address.endpoint}: the controller has ended, or its address is stale"
        else:
            text = f"the controller at {self._address.endpoint} went away while {waits_for()}: its process ended"
        if self._address.durable:
            text += f"; it did not come back for {time.monotonic() - began:.1f} s"
        return ControllerLostError(text)

    def _late(self, began: float, waits_for: Callable[[], str]) -> ControllerTimeoutError:
        return ControllerTimeoutError(
            f"the controller at {self._address.endpoint} did not answer for {time.monotonic() - began:.1f} s "
            f"while {waits_for()}: it is alive but stuck or overloaded"
        )

    def close(self) -> None:
        """Hang up; may be called twice."""
        raise NotImplementedError

    def forked(self) -> None:
        """In a forked child: leave the parent's connection alone and begin anew."""
        raise NotImplementedError


_callers: weakref.WeakSet[_Caller] = weakref.WeakSet()


def _after_fork() -> None:
    for caller in list(_callers):
        caller.forked()


os.register_at_fork(after_in_child=_after_fork)


class Connection(_Caller):
    """For code that blocks; not thread safe. Connects when it is first used, and again after an error.

    `info` is a `controller_info`. Where it says `durable`, a controller that dies is waited for and asked again, with
    the same session and sequence number, until the call's deadline.
    """

    def __init__(
        self, info: Mapping[str, Any], longest: int = LONGEST_MESSAGE, after: tuple[int, int] | None = None
    ) -> None:
        super().__init__(info, longest, after)
        self._channel: Channel | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._channel is not None

    def close(self) -> None:
        """Hang up; may be called twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def forked(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abandon()
        self._begin_session()

    def call(
        self, client: str, body: wire.Body, frames: Sequence[Frame], timeout_s: float, waits_for: Callable[[], str]
    ) -> Answer:
        """The reply to this request; `ControllerTimeoutError` or `ControllerLostError` say what was waited for."""
        began = time.monotonic()
        deadline = began + timeout_s
        message = self._message(client, body, frames)
        pause = FIRST_PAUSE_S
        while True:
            try:
                return self._exchange(message, deadline)
            except Late:
                self.close()
                raise self._late(began, waits_for) from None
            except Lost as lost:
                self.close()
                left = deadline - time.monotonic()
                if not self._address.durable or left <= 0:
                    raise self._lost(lost, began, waits_for) from None
            except BaseException:
                self.close()  # a late reply to this request must never be taken for the reply to another
                raise
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            message = self._again(client, body, frames, time.monotonic() - began)

    def tell(self, client: str, body: wire.Body) -> None:
        """Send a message that has no reply; nothing without a connection: then the controller knows."""
        if self._channel is not None:
            try:
                self._channel.send(self._message(client, body, ()), time.monotonic() + self._connect_s)
            except (Late, Lost):
                self.close()

    def _exchange(self, message: list[Frame], deadline: float) -> Answer:
        channel = self._channel
        if channel is None:
            patience = min(deadline, time.monotonic() + self._connect_s)
            channel = self._channel = channel_to(self._address, patience, self._longest)
        channel.send(message, deadline)
        while True:
            answer = self._answer(channel.receive(deadline))
            if answer is not None:
                return answer


class AsyncConnection(_Caller):
    """The same for asyncio: one call at a time, of one event loop. A call that is cancelled hangs up."""

    def __init__(
        self, info: Mapping[str, Any], longest: int = LONGEST_MESSAGE, after: tuple[int, int] | None = None
    ) -> None:
        super().__init__(info, longest, after)
        self._channel: AsyncChannel | None = None
        self._busy = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._channel is not None

    def close(self) -> None:
        """Hang up; may be called twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def forked(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abandon()
        self._busy = False
        self._begin_session()

    async def call(
        self, client: str, body: wire.Body, frames: Sequence[Frame], timeout_s: float, waits_for: Callable[[], str]
    ) -> Answer:
        """The reply to this request; `ControllerTimeoutError` or `ControllerLostError` say what was waited for."""
        if self._busy:
            raise ConfigurationError("this connection is in a call already: use one connection for each task")
        self._busy = True
        began = time.monotonic()
        try:
            message = self._message(client, body, frames)

            def again() -> list[Frame]:
                return self._again(client, body, frames, time.monotonic() - began)

            return await self._until(began + timeout_s, message, again, began, waits_for)
        except BaseException:
            self.close()  # cancelled or failed: a late reply must never be taken for the reply to another request
            raise
        finally:
            self._busy = False

    async def _until(
        self, deadline: float, message: list[Frame], again: Callable[[], list[Frame]], began: float,
        waits_for: Callable[[], str],
    ) -> Answer:  # fmt: skip
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await self._exchange(message)
            except TimeoutError:
                raise self._late(began, waits_for) from None
            except Lost as lost:
                self.close()
                left = deadline - time.monotonic()
                if not self._address.durable or left <= 0:
                    raise self._lost(lost, began, waits_for) from None
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            message = again()

    async def tell(self, client: str, body: wire.Body) -> None:
        """Send a message that has no reply; nothing, if there is no connection."""
        if self._channel is not None:
            try:
                await self._channel.send(self._message(client, body, ()))
            except Lost:
                self.close()

    async def _exchange(self, message: list[Frame]) -> Answer:
        if self._channel is None:
            self._channel = await self._connect()
        await self._channel.send(message)
        while True:
            answer = self._answer(await self._channel.receive())
            if answer is not None:
                return answer

    async def _connect(self) -> AsyncChannel:
        try:
            async with asyncio.timeout(self._connect_s):
                return await async_channel_to(self._address, self._longest)
        except TimeoutError:
            raise Lost(nobody=True) from None
