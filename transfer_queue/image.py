"""A whole queue as plain data: what a snapshot holds. Versioned, no pickle, the same for every data plane."""

from __future__ import annotations

import msgspec

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.errors import JournalError
from transfer_queue.ledger import Ledger, QueueShape
from transfer_queue.ledger.state import LedgerState
from transfer_queue.state import QueueState
from transfer_queue.storage.image import CatalogImage, catalog_of, image_of

VERSION = 1


class SessionImage(msgspec.Struct, array_like=True, frozen=True):
    session: int
    sequence: int
    answer: wire.ReplyBody


class QueueImage(msgspec.Struct, array_like=True, frozen=True):
    """Everything that operations change."""

    version: int
    shape: QueueShape
    now: float
    ledger: LedgerState
    catalog: CatalogImage
    sessions: list[SessionImage]
    samplers: list[op.Register]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(QueueImage).decode


def encoded(state: QueueState) -> bytes:
    """The state as bytes."""
    sessions = [SessionImage(key, sequence, answer) for key, (sequence, answer) in state.sessions.answers.items()]
    image = QueueImage(
        VERSION, state.ledger.shape, state.now, state.ledger.export(), image_of(state.catalog), sessions,
        list(state.samplers.values()),
    )  # fmt: skip
    return _encode(image)


def restored(data: bytes | memoryview) -> QueueState:
    """The state again; `JournalError` if the bytes are no snapshot of this version."""
    try:
        image = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"a snapshot of {len(data)} bytes is none of this version: {error}") from error
    if image.version != VERSION:
        raise JournalError(f"a snapshot has the version {image.version}, this program reads version {VERSION}")
    state = QueueState(image.shape)
    state.now = image.now
    state.adopt(Ledger.restore(image.ledger, state.clock), catalog_of(image.catalog))
    for each in image.sessions:
        state.sessions.note(each.session, each.sequence, each.answer)
    for sampler in image.samplers:
        state.samplers[sampler.task, sampler.client] = sampler
    return state
