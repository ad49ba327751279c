"""What carries a client's calls: its connections, blocking and on asyncio, and who may use which of them."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from transfer_queue import wire
from transfer_queue.connection import AsyncConnection, Connection
from transfer_queue.errors import ConfigurationError, ProtocolError, rebuild
from transfer_queue.exchange import Answer, Ask, ResultT, Steps, Work
from transfer_queue.mapped_reads import MappedReads


class Carrier:
    """Carries out steps. Threads and event loops may share it: each call has a connection of its own while it lasts."""

    client_id: str

    def __init__(self, controller_info: Mapping[str, Any]) -> None:
        self._info = dict(controller_info)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._idle_async: dict[asyncio.AbstractEventLoop, list[AsyncConnection]] = {}
        self._mapped = MappedReads(self._info)
        self._of_parent: list[Any] = []
        self._ended: deque[wire.Body] = deque()
        self._pid = os.getpid()
        self._closed = False
        weakref.finalize(self, _close_all, self._idle)  # a client that nobody closed must not leave sockets open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; may be called twice."""
        with self._lock:
            self._closed = True
            self._mapped.close()
            _close_all(self._idle)
            for connections in self._idle_async.values():
                _close_all(connections)
            self._idle_async.clear()

    def carry_out(self, steps: Steps[ResultT]) -> ResultT:
        """Ask what the steps ask, one after the other; their result."""
        self._notice_fork()
        try:
            ask = next(steps)
            while True:
                try:
                    answer = ask.future.result(ask.timeout_s) if isinstance(ask, Work) else self._exchange(ask)
                except BaseException as error:  # noqa: BLE001 - the steps decide
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as done:
            result: ResultT = done.value
            return result

    async def carry_out_async(self, steps: Steps[ResultT]) -> ResultT:
        """The same on asyncio."""
        self._notice_fork()
        try:
            ask = next(steps)
            while True:
                try:
                    answer = await (_result(ask) if isinstance(ask, Work) else self._exchange_async(ask))
                except BaseException as error:  # noqa: BLE001 - the steps decide
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as done:
            result: ResultT = done.value
            return result

    def _exchange(self, ask: Ask) -> Answer:
        if ask.expected is None:
            self._tell(ask.body)
        if ask.maps:
            return self._exchange_apart(ask)
        connection = self._take() if ask.after is None else Connection(self._info, after=ask.after)
        number = connection.sequence + 1
        try:
            self._tell_ended(connection)
            if ask.expected is None:
                self._give_back(connection)
                return None, []
            number = connection.sequence + 1  # what is told before and after has numbers too
            reply, frames = connection.call(self.client_id, ask.body, ask.frames, ask.timeout_s, ask.waits)
            self._tell_ended(connection)
        except BaseException:
            connection.close()  # a late reply to this request must never be taken for the reply to another
            if ask.unheard is not None:
                ask.unheard(connection.session, number)
            raise
        self._give_back(connection)
        return _checked(ask, reply), frames

    def _exchange_apart(self, ask: Ask) -> Answer:
        with self._lock:
            self._refuse_if_closed()
        reply, frames = self._mapped.ask(self.client_id, ask)
        return _checked(ask, reply), frames

    async def _apart_async(self, ask: Ask) -> Answer:
        """The connection must not be of an event loop, which may end before what is mapped is let go."""
        asking = asyncio.get_running_loop().run_in_executor(None, self._exchange_apart, ask)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._nobody_reads)
            raise

    def _nobody_reads(self, asked: asyncio.Future[Answer]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._tell(wire.EndRead(asked.result()[0].read))

    async def _exchange_async(self, ask: Ask) -> Answer:
        if ask.maps:
            return await self._apart_async(ask)
        if ask.expected is None:
            self._tell(ask.body)
            return None, []
        connection = self._take_async() if ask.after is None else AsyncConnection(self._info, after=ask.after)
        number = connection.sequence + 1
        try:
            await self._tell_ended_async(connection)
            number = connection.sequence + 1
            reply, frames = await connection.call(self.client_id, ask.body, ask.frames, ask.timeout_s, ask.waits)
            await self._tell_ended_async(connection)
        except BaseException:
            connection.close()
            if ask.unheard is not None:
                ask.unheard(connection.session, number)
            raise
        with self._lock:
            if not self._closed:
                self._idle_async.setdefault(asyncio.get_running_loop(), []).append(connection)
                return _checked(ask, reply), frames
        connection.close()
        return _checked(ask, reply), frames

    def _tell(self, message: wire.Body) -> None:
        """Send a message that has no reply, with the next request; may be called from any thread.

        A connection that is only about to be made takes none: the controller may not know yet by another one's end.
        """
        self._ended.append(message)
        self._mapped.end(message)

    def _tell_ended(self, connection: Connection) -> None:
        while connection.connected and (message := self._untold()) is not None:
            connection.tell(self.client_id, message)

    async def _tell_ended_async(self, connection: AsyncConnection) -> None:
        while connection.connected and (message := self._untold()) is not None:
            await connection.tell(self.client_id, message)

    def _untold(self) -> wire.Body | None:
        try:
            return self._ended.popleft()
        except IndexError:  # another thread may have taken the last one
            return None

    def _take(self) -> Connection:
        self._notice_fork()
        with self._lock:
            self._refuse_if_closed()
            if self._idle:
                return self._idle.pop()
        return Connection(self._info)

    def _take_async(self) -> AsyncConnection:
        self._notice_fork()
        loop = asyncio.get_running_loop()
        with self._lock:
            self._refuse_if_closed()
            for other in [each for each in self._idle_async if each.is_closed()]:
                _close_all(self._idle_async.pop(other))
            if self._idle_async.get(loop):
                return self._idle_async[loop].pop()
        return AsyncConnection(self._info)

    def _notice_fork(self) -> None:
        """In a forked child the lock may be held for ever, and connections are the parent's."""
        if self._pid != os.getpid():
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._of_parent = [*self._idle, self._idle_async, *self._mapped.of_parent()]
        self._mapped = MappedReads(self._info)
        self._idle.clear()
        self._idle_async = {}
        self._ended.clear()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigurationError(f"client {self.client_id!r} is closed: make a new TransferQueueClient")

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


async def _result(work: Work) -> Any:
    return await asyncio.wait_for(asyncio.wrap_future(work.future), work.timeout_s)


def _checked(ask: Ask, reply: wire.ReplyBody) -> wire.ReplyBody:
    if isinstance(reply, wire.Failure):
        raise rebuild(reply.name, reply.message, reply.details)
    if ask.expected is not None and not isinstance(reply, ask.expected):
        raise ProtocolError(f"the controller answered {type(ask.body).__name__} with {type(reply).__name__}")
    return reply


def _close_all(connections: list[Any]) -> None:
    while connections:
        connections.pop().close()
