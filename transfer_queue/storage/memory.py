"""Values in the controller's own memory, per partition, so that they go with it.

What one put brings for one field stays one chunk, and goes out again as it came when the same rows are asked for, as
they mostly are. Only when other rows are, or some are withdrawn, is it cut into rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from transfer_queue import wire
from transfer_queue.errors import FieldError, ProtocolError
from transfer_queue.ledger import Freed

Cell = tuple[tuple[int, ...], bytes]
"""Shape and bytes of one value; objects have the shape ()."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The values of one field in one put: `frame` holds them row after row, of `sizes` bytes each."""

    column: wire.Column
    frame: bytes
    sizes: list[int]

    def cells(self) -> Iterator[Cell]:
        """Row by row."""
        shapes = self.column.shapes or [()]
        shapes = shapes * len(self.sizes) if len(shapes) == 1 else shapes
        start = 0
        for shape, size in zip(shapes, self.sizes, strict=True):
            yield shape, self.frame[start : start + size]
            start += size


@dataclass(slots=True)
class _Kept:
    """The values of one field of one partition: one chunk with its rows, or cells by global index."""

    chunk: Chunk | None = None
    indexes: list[int] = field(default_factory=list)
    cut: dict[int, Cell] = field(default_factory=dict)

    def add(self, indexes: list[int], chunk: Chunk) -> None:
        if self.chunk is None and not self.cut:
            self.chunk, self.indexes = chunk, indexes
        else:
            self.cells().update(zip(indexes, chunk.cells(), strict=True))

    def items(self) -> Iterable[tuple[int, Cell]]:
        return self.cut.items() if self.chunk is None else zip(self.indexes, self.chunk.cells(), strict=True)

    def cells(self) -> dict[int, Cell]:
        if self.chunk is not None:
            self.cut = dict(zip(self.indexes, self.chunk.cells(), strict=True))
            self.chunk, self.indexes = None, []
        return self.cut


class MemoryStorage:
    """Chunks by partition and field; a field has one dtype for the life of the controller.

    `capacity` is the number of rows of a partition: row `index` belongs to the partition `index // capacity`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._partitions: dict[int, dict[str, _Kept]] = {}
        self._sizes: Counter[int] = Counter()
        self._dtypes: dict[str, str] = {}

    @property
    def stored_bytes(self) -> int:
        """Bytes of all values."""
        return self._sizes.total()

    def split(self, rows: int, columns: Sequence[wire.Column], frames: Sequence[bytes]) -> list[Chunk]:
        """The chunk of each column; an error, and nothing stored, if frames do not fit or a field changes its dtype."""
        if len({column.name for column in columns}) != len(columns):
            raise ProtocolError("a field is named twice in one put")
        self.check_dtypes(columns)
        frames = wire.separate(rows, columns, frames)
        return [_chunk(rows, column, frame) for column, frame in zip(columns, frames, strict=True)]

    def check_dtypes(self, columns: Sequence[wire.Column]) -> None:
        """`FieldError` if a field holds values of another dtype already."""
        for column in columns:
            known = self._dtypes.get(column.name, column.dtype)
            if known != column.dtype:
                raise FieldError(
                    f"field {column.name!r} holds {known} values, this put brings {column.dtype}: a field has one dtype"
                )

    def write(self, indexes: list[int], chunks: Sequence[Chunk]) -> None:
        """Keep the values of these rows; the ledger has made sure that none is there already."""
        for chunk in chunks:
            self._dtypes[chunk.column.name] = chunk.column.dtype
        serial = min(indexes) // self._capacity
        if serial == max(indexes) // self._capacity:
            for chunk in chunks:
                self._kept(serial, chunk.column.name).add(indexes, chunk)
                self._sizes[serial] += len(chunk.frame)
            return
        for chunk in chunks:
            for index, cell in zip(indexes, chunk.cells(), strict=True):
                self._kept(index // self._capacity, chunk.column.name).cells()[index] = cell
                self._sizes[index // self._capacity] += len(cell[1])

    def read(self, name: str, indexes: list[int]) -> tuple[wire.Column, bytes]:
        """The values of one field of these rows, in this order."""
        kept = self._partitions.get(indexes[0] // self._capacity, {}).get(name) if indexes else None
        if kept is not None and kept.chunk is not None and kept.indexes == indexes:
            return kept.chunk.column, kept.chunk.frame
        cells = [self._cell(name, index) for index in indexes]
        dtype, values = self._dtypes[name], [value for _, value in cells]
        if dtype == wire.OBJECT:
            return wire.Column(name, dtype, [], [len(value) for value in values]), b"".join(values)
        shapes = [shape for shape, _ in cells]
        same = all(shape == shapes[0] for shape in shapes)
        return wire.Column(name, dtype, shapes[:1] if same else shapes), b"".join(values)

    def glimpses(self, name: str, indexes: Sequence[int], most: int) -> list[wire.Glimpse | None]:
        """What each value begins with, at most `most` bytes of it; chunks stay whole."""
        found: dict[int, Cell] = {}
        for serial in {index // self._capacity for index in indexes}:
            kept = self._partitions.get(serial, {}).get(name)
            if kept is not None:
                wanted = {index for index in indexes if index // self._capacity == serial}
                found |= {index: cell for index, cell in kept.items() if index in wanted}
        return [
            wire.Glimpse(self._dtypes[name], found[index][0], len(found[index][1]), found[index][1][:most])
            if index in found
            else None
            for index in indexes
        ]

    def free(self, freed: Freed) -> None:
        """Forget what the ledger has given up."""
        if freed.field is None:
            self._partitions.pop(freed.serial, None)
            self._sizes.pop(freed.serial, None)
            return
        cells = self._kept(freed.serial, freed.field).cells()
        for row in freed.rows:
            cell = cells.pop(freed.serial * self._capacity + row, None)
            self._sizes[freed.serial] -= len(cell[1]) if cell is not None else 0

    def _kept(self, serial: int, name: str) -> _Kept:
        fields = self._partitions.setdefault(serial, {})
        if name not in fields:
            fields[name] = _Kept()
        return fields[name]

    def _cell(self, name: str, index: int) -> Cell:
        kept = self._partitions.get(index // self._capacity, {}).get(name)
        cell = kept.cells().get(index) if kept is not None else None
        if cell is None:
            raise FieldError(f"row {index} has no field {name!r}: it was not produced")
        return cell


def _chunk(rows: int, column: wire.Column, frame: bytes) -> Chunk:
    sizes = wire.row_sizes(column, rows)
    if sum(sizes) != len(frame):
        raise ProtocolError(f"field {column.name!r} says {sum(sizes)} bytes but brings {len(frame)}")
    if len(column.shapes) > 1 and all(shape == column.shapes[0] for shape in column.shapes):
        column = wire.Column(column.name, column.dtype, column.shapes[:1], column.sizes)
    return Chunk(column, frame, sizes)
