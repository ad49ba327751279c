"""Connections of reads that outlive their call: what `zero_copy` maps stays as it is while its connection is open.

The controller ends the reads of a connection that is closed, and one that carries other calls may be closed at any
time: a call that is cancelled or comes too late closes it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from transfer_queue import wire
from transfer_queue.connection import Connection
from transfer_queue.exchange import Answer, Ask


class MappedReads:
    """A connection for each result that is mapped. Needs no lock: a mapping may be let go wherever garbage is found."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._info = info
        self._idle: list[Connection] = []
        self._open: dict[int, Connection] = {}
        self._closed = False
        weakref.finalize(self, _close, self._idle)

    def ask(self, client: str, ask: Ask) -> Answer:
        """Carry out a `GetData`; if it begins a read, its connection is that read's alone until `end`."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = Connection(self._info)
        try:
            reply, frames = connection.call(client, ask.body, ask.frames, ask.timeout_s, ask.waits)
        except BaseException:
            connection.close()
            raise
        if isinstance(reply, wire.Values) and reply.read >= 0:
            self._open[reply.read] = connection
        else:
            self._leave(connection)
        return reply, frames

    def end(self, message: wire.Body) -> None:
        """This message ends a read, if it was one of these."""
        connection = self._open.pop(message.read, None) if isinstance(message, wire.EndRead) else None
        if connection is not None:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            _close(self._idle)

    def close(self) -> None:
        """Keep only the connections of what is mapped still; each is closed when that is let go."""
        self._closed = True
        _close(self._idle)

    def of_parent(self) -> list[Connection]:
        """All connections, for a forked child to keep and never use."""
        return [*self._idle, *self._open.values()]


def _close(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()
