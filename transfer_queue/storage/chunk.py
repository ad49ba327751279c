"""What one put brought for one field: a column, and where its bytes lie."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from transfer_queue import wire
from transfer_queue.errors import FieldError, ProtocolError
from transfer_queue.wire import INLINE, Extent


class Chunk:
    """The values of one field in one put, row after row, of `sizes` bytes each.

    They are `frame`, or lie at `extent` where `frame` is None. `rows` are their places in the partition, known once
    the ledger has given them out; `live` counts those not freed yet.
    """

    __slots__ = ("column", "extent", "frame", "live", "rows", "sizes", "starts")

    def __init__(self, column: wire.Column, frame: bytes | None, extent: Extent, sizes: list[int]) -> None:
        self.column, self.frame, self.extent, self.sizes = column, frame, extent, sizes
        self.starts = [0] if len(sizes) == 1 else [0, *itertools.accumulate(sizes)][:-1]
        self.rows: list[int] = []
        self.live = 0

    @property
    def size(self) -> int:
        """Bytes of all its rows."""
        return self.starts[-1] + self.sizes[-1]

    def shape(self, position: int) -> tuple[int, ...]:
        """The shape of one value; objects have the shape ()."""
        shapes = self.column.shapes
        if not shapes:
            return ()
        return shapes[0] if len(shapes) == 1 else shapes[position]

    def value(self, position: int) -> bytes:
        """The bytes of one value that lies in the controller."""
        assert self.frame is not None
        start = self.starts[position]
        return self.frame[start : start + self.sizes[position]]

    def place(self, position: int) -> tuple[int, int, int]:
        """Segment, offset and bytes of one value that lies elsewhere."""
        segment, offset = self.extent
        return segment, offset + self.starts[position], self.sizes[position]

    def placed_at(self, rows: list[int]) -> Chunk:
        """Itself, once its rows have places."""
        self.rows, self.live = rows, len(rows)
        return self

    def part(self, positions: Sequence[int]) -> Chunk:
        """The rows at `positions` as a chunk of their own with copies of their bytes; only where these lie here."""
        column = self.column
        sizes = [self.sizes[position] for position in positions]
        shapes = column.shapes if len(column.shapes) < 2 else [column.shapes[position] for position in positions]
        frame = b"".join(self.value(position) for position in positions)
        told = wire.Column(column.name, column.dtype, shapes, sizes if column.dtype == wire.OBJECT else [])
        return Chunk(told, frame, INLINE, sizes)

    def alone(self, position: int) -> Chunk:
        """One row that lies elsewhere as a chunk of its own."""
        segment, offset, size = self.place(position)
        sizes = [size] if self.column.dtype == wire.OBJECT else []
        shapes = [self.shape(position)] if self.column.shapes else []
        column = wire.Column(self.column.name, self.column.dtype, shapes, sizes)
        return Chunk(column, None, (segment, offset), [size])


def split(put: wire.Put, frames: Sequence[wire.Frame]) -> list[Chunk]:
    """The chunk of each column of a put; `ProtocolError` if frames or extents are not what the columns describe."""
    columns, extents = put.columns, put.extents or [INLINE] * len(put.columns)
    if len(extents) != len(columns):
        raise ProtocolError(f"{len(columns)} fields came with {len(extents)} extents")
    if len(columns) > 1 and len({column.name for column in columns}) != len(columns):
        raise ProtocolError("a field is named twice in one put")
    sizes = [wire.row_sizes(column, put.rows) for column in columns]
    inline = [column for column, extent in zip(columns, extents, strict=True) if extent[0] < 0]
    values = iter(wire.separate(put.rows, inline, frames) if inline or frames else ())
    chunks = []
    for column, extent, bytes_of in zip(columns, extents, sizes, strict=True):
        frame = bytes(next(values)) if extent[0] < 0 else None
        if frame is not None and sum(bytes_of) != len(frame):
            raise ProtocolError(f"field {column.name!r} says {sum(bytes_of)} bytes but brings {len(frame)}")
        if frame is None and extent[1] < 0:
            raise ProtocolError(f"field {column.name!r} lies at the negative offset {extent[1]}")
        chunks.append(Chunk(_plain(column), frame, (int(extent[0]), int(extent[1])), bytes_of))
    return chunks


def _plain(column: wire.Column) -> wire.Column:
    """The column with one shape where all rows have the same."""
    shapes = column.shapes
    if len(shapes) > 1 and shapes.count(shapes[0]) == len(shapes):
        return wire.Column(column.name, column.dtype, shapes[:1], column.sizes)
    return column


def check_dtypes(known: dict[str, str], chunks: Sequence[Chunk]) -> None:
    """`FieldError` if a field holds values of another dtype already."""
    for chunk in chunks:
        name, dtype = chunk.column.name, chunk.column.dtype
        holds = known.get(name, dtype)
        if holds != dtype:
            raise FieldError(f"field {name!r} holds {holds} values, this put brings {dtype}: a field has one dtype")
