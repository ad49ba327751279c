"""The messages between clients and the controller: typed msgpack in the first frame, raw values in the others.

Nothing that arrives is ever unpickled. A request is [header, values, values, …], a reply the same: a frame of values
for each column, or one for all of them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from transfer_queue.errors import ProtocolError
from transfer_queue.reports import Explained as Explained
from transfer_queue.reports import Glimpse as Glimpse
from transfer_queue.reports import Peeked as Peeked
from transfer_queue.reports import PeekedRow as PeekedRow
from transfer_queue.reports import Stats as Stats
from transfer_queue.reports import Surveyed as Surveyed
from transfer_queue.reports import TaskStats as TaskStats
from transfer_queue.samplers.travel import SamplerSpec

ITEM_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
"""Bytes of one number, by the name that NumPy and torch share."""

Frame = bytes | bytearray | memoryview

JOINED_BYTES = 1 << 16
"""Values of up to this size travel in one frame; beyond it, copying them together costs more than it saves."""

Extent = tuple[int, int]
"""Where the values of one column begin: the number of a segment, and an offset in it."""

INLINE: Extent = (-1, 0)
"""The extent of a column whose values travel in the message and lie in the controller."""

OBJECT = "object"
"""The dtype of strings, bytes and JSON-like values; each row is a msgpack document of its own."""


class Column(msgspec.Struct, array_like=True, frozen=True):
    """One field of some rows; its values are one frame: the rows' bytes one after the other.

    `shapes` holds one shape for all rows, or one per row where they differ; `sizes` the bytes of each object.
    """

    name: str
    dtype: str
    shapes: list[tuple[int, ...]]
    sizes: list[int] = []


class Ack(msgspec.Struct, tag="ack", array_like=True, frozen=True):
    lease: int
    dp_rank: int | None = None
    version: int | None = None


class Put(msgspec.Struct, tag="put", array_like=True, frozen=True):
    """New rows (`indexes` empty), or more fields of rows that exist.

    `extents` is parallel to `columns`, or empty where all values travel inside the message. `ack`: with the fields of
    rows that exist, their lease is acknowledged; both are done, or neither.
    """

    rows: int
    columns: list[Column]
    indexes: list[int] = []
    lease: int | None = None
    step: int | None = None
    group_ids: list[str | int] | None = None
    timeout_s: float = 300.0
    extents: list[Extent] = []
    ack: Ack | None = None


class GetMeta(msgspec.Struct, tag="get_meta", array_like=True, frozen=True):
    """`values`: the reply shall bring the values of the fields too, where it can."""

    task: str
    fields: list[str]
    batch_size: int
    step: int | None
    get_n_samples: bool
    params: dict[str, Any] | None
    lease_s: float | None
    timeout_s: float
    values: bool = False


class GetData(msgspec.Struct, tag="get_data", array_like=True, frozen=True):
    """`far`: the caller cannot read segments, so all values shall come inside the reply.

    `task` is the one that was given the rows: what it took without a lease is kept until it has read them.
    """

    indexes: list[int]
    fields: list[str]
    far: bool = False
    task: str | None = None


class EndRead(msgspec.Struct, tag="end_read", array_like=True, frozen=True):
    """The values that `Values.read` let the client map are copied or let go; it has no reply."""

    read: int


class Attach(msgspec.Struct, tag="attach", array_like=True, frozen=True):
    """A new segment of the caller's values: a file of `size` bytes that it holds locked while it lives."""

    path: str
    size: int


class Detach(msgspec.Struct, tag="detach", array_like=True, frozen=True):
    """The caller writes no more into these segments; the controller removes each with its last row."""

    segments: list[int]


class Recycle(msgspec.Struct, tag="recycle", array_like=True, frozen=True):
    """Which bytes of these segments are free again; waits until some are, at most `timeout_s`."""

    segments: list[int]
    timeout_s: float = 0.0


class GiveUp(msgspec.Struct, tag="give_up", array_like=True, frozen=True):
    """The caller heard no answer to this earlier request of its session: `Done.changed` says whether it was carried
    out, or may have been. If not, it never will be, should it still come."""

    sequence: int


class Locate(msgspec.Struct, tag="locate", array_like=True, frozen=True):
    """Where these segments lie."""

    segments: list[int]


class Lost(msgspec.Struct, tag="lost", array_like=True, frozen=True):
    """The caller could not read these segments: their storage died."""

    segments: list[int]


class Release(msgspec.Struct, tag="release", array_like=True, frozen=True):
    lease: int


class Extend(msgspec.Struct, tag="extend", array_like=True, frozen=True):
    lease: int
    seconds: float


class Drop(msgspec.Struct, tag="drop", array_like=True, frozen=True):
    lease: int
    reason: str
    refill: bool = False


class Clear(msgspec.Struct, tag="clear", array_like=True, frozen=True):
    step: int
    force: bool = False


class Checkpoint(msgspec.Struct, tag="checkpoint", array_like=True, frozen=True):
    """Write the whole queue, as it is now, to a file of the controller's machine."""

    path: str


class Rollback(msgspec.Struct, tag="rollback", array_like=True, frozen=True):
    version: int


class Why(msgspec.Struct, tag="why", array_like=True, frozen=True):
    task: str


class GetStats(msgspec.Struct, tag="stats", array_like=True, frozen=True):
    pass


MOST_TASKS = 32
"""Tasks that a survey, a status document and the metrics tell one by one."""


class Survey(msgspec.Struct, tag="survey", array_like=True, frozen=True):
    """All counts, and where at most 32 tasks stand (`task`: that one alone), of one moment."""

    task: str | None = None


class Peek(msgspec.Struct, tag="peek", array_like=True, frozen=True):
    """The first `limit` rows of a step (None: of every step), with what `fields` (None: all) begin with."""

    step: int | None
    limit: int
    fields: list[str] | None


class RegisterSampler(msgspec.Struct, tag="register_sampler", array_like=True, frozen=True):
    """`everyone`: through the controller, for every caller; otherwise for the client that asks."""

    task: str
    spec: SamplerSpec
    everyone: bool = False


Body = (
    Put | GetMeta | GetData | EndRead | Attach | Detach | Recycle | GiveUp | Locate | Lost
    | Ack | Release | Extend | Drop | Clear | Rollback | Checkpoint | Why | GetStats | Survey | Peek | RegisterSampler
)  # fmt: skip


class Request(msgspec.Struct, array_like=True, frozen=True):
    """`sequence` grows with each request of a session, which may outlive its connection; the reply bears the same.

    A request that comes twice (its reply was lost) is carried out once and answered twice.
    """

    sequence: int
    client: str
    body: Body
    session: int = 0


class Values(msgspec.Struct, tag="values", array_like=True, frozen=True):
    """Values by column, a frame each; a column in `placed` has in its stead where each row lies.

    Such a frame is an array of int64, three per row: segment, offset, bytes. A row whose segment is -1 lies at that
    offset of the last frame. Until `EndRead(read)` the bytes stay as they are.
    """

    columns: list[Column]
    placed: list[int] = []
    read: int = -1


class Rows(msgspec.Struct, tag="rows", array_like=True, frozen=True):
    """Rows that were put or taken; `steps` and `group_ids` are parallel to `indexes`.

    Where `values` were asked for and could come, their frames follow.
    """

    indexes: list[int]
    steps: list[int]
    group_ids: list[str | int]
    lease: int | None = None
    dp_rank: int | None = None
    values: Values | None = None


class Attached(msgspec.Struct, tag="attached", array_like=True, frozen=True):
    segment: int


class Recycled(msgspec.Struct, tag="recycled", array_like=True, frozen=True):
    """Byte ranges (segment, offset, bytes) that the caller may write again."""

    ranges: list[tuple[int, int, int]]


class Located(msgspec.Struct, tag="located", array_like=True, frozen=True):
    """The paths of the segments asked for, in their order."""

    paths: list[str]


class Rolled(msgspec.Struct, tag="rolled", array_like=True, frozen=True):
    """Rows that are free again, by task; and what cannot come back: steps that were cleared, rows that were freed."""

    rows: dict[str, list[int]]
    gone_steps: list[int]
    gone_rows: list[int]


class Done(msgspec.Struct, tag="done", array_like=True, frozen=True):
    """The request was carried out; for `clear`, `changed` says whether the step was alive."""

    changed: bool = True


class Failure(msgspec.Struct, tag="failure", array_like=True, frozen=True):
    """An error of `transfer_queue.errors` by name."""

    name: str
    message: str
    details: dict[str, Any]


ReplyBody = (
    Rows | Values | Done | Attached | Recycled | Located | Rolled | Explained | Stats | Surveyed | Peeked | Failure
)


class Reply(msgspec.Struct, array_like=True, frozen=True):
    sequence: int
    body: ReplyBody


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)

encode = _encoder.encode


def decode_request(frame: Frame) -> Request:
    """The request in a header frame; `ProtocolError` if it is none."""
    try:
        return _requests.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a message of {len(frame)} bytes is no request of this version: {error}") from error


def decode_reply(frame: Frame) -> Reply:
    """The reply in a header frame; `ProtocolError` if it is none."""
    try:
        return _replies.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a message of {len(frame)} bytes is no reply of this version: {error}") from error


def joined(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Frames of values as they travel: small ones as one, because every part of a message costs a system call."""
    if len(frames) > 1 and sum(map(len, frames)) <= JOINED_BYTES:
        return [b"".join(frames)]
    return frames


def separate(rows: int, columns: Sequence[Column], frames: Sequence[Frame]) -> Sequence[Frame]:
    """One frame per column again; `ProtocolError` if what came is not what the columns describe."""
    if len(frames) == 1 and len(columns) > 1:
        ends = [0, *itertools.accumulate(_whole_size(column, rows) for column in columns)]
        if ends[-1] != len(frames[0]):
            raise ProtocolError(f"{len(columns)} fields describe {ends[-1]} bytes, the message brings {len(frames[0])}")
        return [frames[0][start:end] for start, end in itertools.pairwise(ends)]
    if len(frames) != len(columns):
        raise ProtocolError(f"{len(columns)} fields came with {len(frames)} frames of values")
    return frames


def _whole_size(column: Column, rows: int) -> int:
    """Bytes of all rows together."""
    if len(column.shapes) == 1 and column.dtype in ITEM_SIZES:
        return rows * _bytes(column.shapes[0], ITEM_SIZES[column.dtype])
    return sum(row_sizes(column, rows))


def row_sizes(column: Column, rows: int) -> list[int]:
    """Bytes of each row; `ProtocolError` if the column does not describe that many rows."""
    if column.dtype == OBJECT:
        sizes = column.sizes
    elif column.dtype not in ITEM_SIZES:
        raise ProtocolError(f"field {column.name!r} has the unknown dtype {column.dtype!r}")
    else:
        sizes = [_bytes(shape, ITEM_SIZES[column.dtype]) for shape in column.shapes]
        sizes = sizes * rows if len(sizes) == 1 else sizes
    if len(sizes) != rows or any(size < 0 for size in sizes):
        raise ProtocolError(f"field {column.name!r} describes {len(sizes)} rows, the request has {rows}")
    return sizes


def _bytes(shape: Sequence[int], item: int) -> int:
    for length in shape:
        if length < 0:
            raise ProtocolError(f"a shape {tuple(shape)} has a negative length")
        item *= length
    return item
