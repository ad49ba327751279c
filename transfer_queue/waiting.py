"""Requests that wait in the controller: first come first served within a task, each with a deadline."""

from __future__ import annotations

from dataclasses import dataclass, field

from transfer_queue import wire
from transfer_queue.ledger import Want
from transfer_queue.samplers.registry import Choice
from transfer_queue.storage.memory import Chunk
from transfer_queue.transport.link import Link


@dataclass(slots=True, eq=False)
class Caller:
    """Where a reply goes: the connection, and the sequence number that it must bear."""

    link: Link
    sequence: int
    client: str


@dataclass(slots=True, eq=False)
class Consumer:
    """A `get_meta` that waits. `tried` says at which version of a partition a custom sampler found too little there."""

    caller: Caller
    want: Want
    choice: Choice
    since: float
    deadline: float
    running: bool = False
    tried: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Producer:
    """A `put` of new rows that waits for a partition to be cleared; its values wait with it.

    `tried` says at which `Steps.version` there was no room for it.
    """

    caller: Caller
    put: wire.Put
    chunks: list[Chunk]
    since: float
    deadline: float
    tried: int = -1


class Line:
    """The consumers that wait, in order of arrival."""

    def __init__(self) -> None:
        self.consumers: list[Consumer] = []

    def ahead_of(self, consumer: Consumer) -> Consumer | None:
        """An earlier request for rows that this one could take from it: same task, and a step in common."""
        for other in self.consumers:
            if other is consumer:
                return None
            if other.want.task == consumer.want.task and (
                other.want.step is None or consumer.want.step is None or other.want.step == consumer.want.step
            ):
                return other
        return None

    def of_task(self, task: str) -> list[Consumer]:
        return [consumer for consumer in self.consumers if consumer.want.task == task]
