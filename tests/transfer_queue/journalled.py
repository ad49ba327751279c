"""A queue without its process: a service on a journal, links that remember, and a crash wherever a test wants one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from transfer_queue import engine, wire
from transfer_queue.engine import Settings
from transfer_queue.image import encoded
from transfer_queue.journal import Journal
from transfer_queue.journal.folder import Folder
from transfer_queue.ledger import QueueShape
from transfer_queue.ledger.view import CONSUMED, LEASED
from transfer_queue.recorder import Recorder
from transfer_queue.recovery import fold, identity_of
from transfer_queue.room import Room
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.service import Service
from transfer_queue.state import QueueState
from transfer_queue.storage.image import image_of


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class PlainLink:
    """A connection that keeps what is sent; `deaf` ones take nothing, as those whose peer died."""

    def __init__(self, key: int) -> None:
        self.key, self.deaf = key, False
        self.replies: list[tuple[wire.Reply, list[Any]]] = []

    def send(self, parts: Sequence[Any]) -> bool:
        if not self.deaf:
            self.replies.append((wire.decode_reply(parts[0]), list(parts[1:])))
        return not self.deaf

    def alive(self) -> bool:
        return not self.deaf

    def close(self) -> None:
        self.deaf = True


class Node:
    """A controller's inside. `crash` loses what is not in the journal's file, `restart` reads that again."""

    def __init__(self, journal_dir: Path, arenas: Path | None = None, *, clock: Clock | None = None, **options: Any):
        sizes = {"global_batch_size": 4, "num_global_batch": 2, **options}
        self.capacity = sizes.pop("capacity_bytes", None)
        self.settings = Settings(shape=QueueShape(**sizes), journal_dir=str(journal_dir))
        self.arenas, self.clock = arenas, clock or Clock()
        self.links = 0
        self.restart()

    def restart(self) -> None:
        """Come up from the journal, as a new process does."""
        state, journal = engine._recovered(self.settings)
        assert journal is not None
        self.state, self.journal = state, journal
        self.posted: list[Callable[[], None]] = []
        self.failures: list[Exception] = []
        self.service = Service(
            Recorder(state, self.clock, journal), SamplerRegistry(self.settings.shape), self.posted.append,
            Room(self.capacity), timeout_s=10.0, folder=self.arenas, fatal=self.failures.append,
        )  # fmt: skip

    def crash(self) -> None:
        """What SIGKILL leaves: the file as it is, and nobody who holds its lock."""
        self.journal._burst.restart(self.journal._segment.mark)
        self.journal.close()

    def link(self) -> PlainLink:
        self.links += 1
        return PlainLink(self.links)

    def hear(self, link: PlainLink, request: wire.Request, frames: Sequence[bytes] = ()) -> None:
        """Take a request in, without writing the journal or answering."""
        self.service.received(link, [wire.encode(request), *frames])

    def replayed(self) -> QueueState:
        """The state that a restart would find now."""
        self.crash()
        state, journal = engine._recovered(self.settings)
        journal, self.journal = self.journal, journal  # type: ignore[assignment]
        self.service.recorder.journal = self.journal
        self.service._checkpoints._journal = self.journal
        return state

    def compact(self) -> None:
        """Put a snapshot in the place of the journal's records."""
        from transfer_queue.journal.compact import compact

        upto = self.journal.seal()
        size = compact(Folder(self.journal.folder), upto, fold)["bytes"]
        self.journal.compacted(upto, size)

    def close(self) -> None:
        self.journal.close()


class Peer:
    """One session: sends requests that are numbered, and can send its last one again."""

    def __init__(self, node: Node, session: int, name: str = "peer") -> None:
        self.node, self.session, self.name = node, session, name
        self.sequence = 0
        self.link = node.link()
        self.last: tuple[wire.Request, Sequence[bytes]] | None = None

    def send(self, body: wire.Body, frames: Sequence[bytes] = ()) -> None:
        """Ask, and see no answer yet."""
        self.sequence += 1
        self.last = wire.Request(self.sequence, self.name, body, self.session), frames
        self.node.hear(self.link, *self.last)

    def again(self) -> None:
        """Ask the same again through a new connection, as a client does whose connection broke."""
        assert self.last is not None
        self.link = self.node.link()
        self.node.hear(self.link, *self.last)

    def answer(self) -> Any:
        """The body of the answer to the last request, or None."""
        for reply, _ in self.link.replies:
            if reply.sequence == self.sequence:
                return reply.body
        return None

    def ask(self, body: wire.Body, frames: Sequence[bytes] = ()) -> Any:
        """Ask, let the burst settle, and give the answer."""
        self.send(body, frames)
        self.node.service.settle()
        return self.answer()


def put_of(count: int, *, field: str = "x", value: bytes = b"v", **more: Any) -> tuple[wire.Put, list[bytes]]:
    """A put of rows with one small field."""
    document = msgspec.msgpack.encode(value)
    column = wire.Column(field, wire.OBJECT, [], [len(document)] * count)
    return wire.Put(count, [column], **more), [document * count]


def want_of(count: int, task: str = "train", *, fields: Sequence[str] = ("x",), **more: Any) -> wire.GetMeta:
    """A `get_meta` that waits up to a minute."""
    known = {"step": None, "get_n_samples": False, "params": None, "lease_s": None, "timeout_s": 60.0, **more}
    return wire.GetMeta(task, list(fields), count, **known)


def image(state: QueueState) -> Any:
    """The state as plain data, less what may differ between two that mean the same."""
    found = msgspec.msgpack.decode(encoded(state))
    version, shape, _, ledger, catalog, sessions, samplers = found
    del ledger["last_wants"]
    for partition in ledger["partitions"]:
        del partition["version"]  # it says that something changed, not what
        partition["tasks"] = {
            name: stand for name, stand in partition["tasks"].items()
            if stand["fields_read"] or {LEASED, CONSUMED} & set(stand["states"])  # others come to be when looked at
        }  # fmt: skip
    segments = [(each.number, each.path, each.orphan, _merged(each.free)) for each in image_of(state.catalog).segments]
    return version, shape, ledger, catalog[:2], segments, catalog[3], sessions, samplers


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for offset, size in sorted(ranges):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + size)
        else:
            found.append((offset, size))
    return found


__all__ = ["Clock", "Journal", "Node", "Peer", "PlainLink", "identity_of", "image", "put_of", "want_of"]
