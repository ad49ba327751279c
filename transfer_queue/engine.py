"""Everything behind the socket, put together: recovered state, journal, samplers, room, service."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from transfer_queue import operations as op
from transfer_queue.checkpoint import payload_of
from transfer_queue.errors import JournalError, TransferQueueError
from transfer_queue.journal import Compactor, Journal
from transfer_queue.ledger import QueueShape
from transfer_queue.recorder import Recorder
from transfer_queue.recovery import begun_anew, identity_of, replayed
from transfer_queue.room import Room
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import build
from transfer_queue.service import Service
from transfer_queue.serving import Post
from transfer_queue.state import QueueState

log = logging.getLogger(__name__)

FOLD = "transfer_queue.recovery:fold"


PIECE = 256 << 20
"""Bytes of a checkpoint in one record of a journal that begins with it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue is started with, besides its samplers.

    `arenas` is the folder of large values (None: all values lie in the controller), `namespace` that of the run's Ray
    actors, `journal_dir` the folder of the journal (None: the queue dies with its controller), `fsync_ms` how much of
    it a loss of power may cost, `restore` a checkpoint that a new queue begins with.
    """

    shape: QueueShape
    sampler_timeout_s: float = 30.0
    capacity_bytes: int | None = None
    arenas: str | None = None
    namespace: str | None = None
    journal_dir: str | None = None
    restore: str | None = None
    fsync_ms: float = 50.0


def open_queue(
    settings: Settings, registry: SamplerRegistry, post: Post, fatal: Callable[[Exception], None]
) -> Service:
    """The service of a queue, as its journal left it; `fatal` is called when it cannot go on."""
    state, journal = _recovered(settings)
    _register_again(state, registry)
    recorder = Recorder(state, time.monotonic, journal)
    compactor = Compactor(journal, FOLD) if journal is not None else None
    folder = Path(settings.arenas) if settings.arenas is not None else None
    service = Service(
        recorder, registry, post, Room(settings.capacity_bytes), timeout_s=settings.sampler_timeout_s,
        folder=folder, namespace=settings.namespace, compactor=compactor, fatal=fatal,
    )  # fmt: skip
    if (
        journal is not None
    ):  # what lay in folders that are gone is made again, and does not wait until somebody misses it
        service.places.missing(list(state.catalog.segments.known), lambda lost: None)
    return service


def _recovered(settings: Settings) -> tuple[QueueState, Journal | None]:
    if settings.journal_dir is None:
        return _begun(settings)[0], None
    identity = identity_of(settings.shape)
    journal, found = Journal.open(Path(settings.journal_dir), fsync_ms=settings.fsync_ms, identity=identity)
    for warning in found.warnings:
        log.warning("%s", warning)
    try:
        state = replayed(found.snapshot, found.records)
        if state is None:
            state, first = _begun(settings)
            for operation, frames in first:
                journal.append(*op.to_journal(op.Record(state.now, 0, 0, operation), frames))
            journal.commit()
    except BaseException:
        journal.close()
        raise
    return state, journal


def _begun(settings: Settings) -> tuple[QueueState, list[tuple[op.Operation, list[memoryview]]]]:
    """A new queue, or one that begins with a checkpoint, and the records that say so."""
    if settings.restore is None:
        return QueueState(settings.shape), [(op.Begin(settings.shape), [])]
    payload = payload_of(Path(settings.restore))
    state = begun_anew(payload)
    if state.ledger.shape != settings.shape:
        raise JournalError(
            f"the checkpoint {settings.restore} is of a queue of {state.ledger.shape}, this one is of {settings.shape}"
        )
    pieces = [memoryview(payload)[start : start + PIECE] for start in range(0, len(payload), PIECE)]
    return state, [(op.Restored(number, len(pieces)), [piece]) for number, piece in enumerate(pieces)]


def _register_again(state: QueueState, registry: SamplerRegistry) -> None:
    """The samplers that were registered while the queue lived; one that cannot be made again makes its task refuse."""
    for registered in state.samplers.values():
        try:
            if registered.spec is None:
                raise TransferQueueError("it cannot be made again from an import path and arguments")
            registry.register(build(registered.spec), registered.task, registered.client)
        except TransferQueueError as error:
            log.warning("sampler %s of task %r is lost: %s", registered.name, registered.task, error)
            registry.lose(registered.task, f"{registered.name}: {error}")
