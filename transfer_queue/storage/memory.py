"""Values in the controller's own memory, row by row, so that each is freed with its row."""

from __future__ import annotations

from collections.abc import Sequence

from transfer_queue import wire
from transfer_queue.errors import FieldError, ProtocolError
from transfer_queue.ledger import Freed

Cell = tuple[tuple[int, ...], bytes]
"""Shape and bytes of one value; objects have the shape ()."""


class MemoryStorage:
    """Per field one cell per row, by global index; a field has one dtype for the life of the controller."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._fields: dict[str, dict[int, Cell]] = {}
        self._dtypes: dict[str, str] = {}
        self.bytes = 0

    def split(self, rows: int, columns: Sequence[wire.Column], frames: Sequence[bytes]) -> list[list[Cell]]:
        """The cells of each column; an error, and nothing stored, if frames do not fit or a field changes its dtype."""
        if len(columns) != len(frames):
            raise ProtocolError(f"{len(columns)} fields came with {len(frames)} frames of values")
        if len({column.name for column in columns}) != len(columns):
            raise ProtocolError("a field is named twice in one put")
        return [self._cells(rows, column, frame) for column, frame in zip(columns, frames, strict=True)]

    def check_dtypes(self, columns: Sequence[wire.Column]) -> None:
        """`FieldError` if a field holds values of another dtype already."""
        for column in columns:
            known = self._dtypes.get(column.name, column.dtype)
            if known != column.dtype:
                raise FieldError(
                    f"field {column.name!r} holds {known} values, this put brings {column.dtype}: a field has one dtype"
                )

    def _cells(self, rows: int, column: wire.Column, frame: bytes) -> list[Cell]:
        self.check_dtypes([column])
        sizes = wire.row_sizes(column, rows)
        if sum(sizes) != len(frame):
            raise ProtocolError(f"field {column.name!r} says {sum(sizes)} bytes but brings {len(frame)}")
        shapes = column.shapes or [()]
        if len(shapes) == 1 and column.sizes == [] and sizes[0]:
            return [(shapes[0], frame[start : start + sizes[0]]) for start in range(0, len(frame), sizes[0])]
        shapes = shapes * rows if len(shapes) == 1 else shapes
        cells, start = [], 0
        for shape, size in zip(shapes, sizes, strict=True):
            cells.append((shape, frame[start : start + size]))
            start += size
        return cells

    def write(self, indexes: Sequence[int], columns: Sequence[wire.Column], cells: Sequence[Sequence[Cell]]) -> None:
        """Keep the cells of these rows; the ledger has made sure that none is there already."""
        for column, values in zip(columns, cells, strict=True):
            self._dtypes[column.name] = column.dtype
            self._fields.setdefault(column.name, {}).update(zip(indexes, values, strict=True))
            self.bytes += sum(len(value) for _, value in values)

    def read(self, field: str, indexes: Sequence[int]) -> tuple[wire.Column, bytes]:
        """The values of one field of these rows, in this order."""
        kept = self._fields.get(field, {})
        try:
            cells = [kept[index] for index in indexes]
        except KeyError as error:
            raise FieldError(f"row {error.args[0]} has no field {field!r}: it was not produced") from None
        dtype = self._dtypes[field]
        values = [value for _, value in cells]
        if dtype == wire.OBJECT:
            return wire.Column(field, dtype, [], [len(value) for value in values]), b"".join(values)
        shapes = [shape for shape, _ in cells]
        same = all(shape == shapes[0] for shape in shapes)
        return wire.Column(field, dtype, shapes[:1] if same else shapes), b"".join(values)

    def free(self, freed: Freed) -> None:
        """Forget what the ledger has given up."""
        first = freed.serial * self._capacity
        fields = self._fields.values() if freed.field is None else [self._fields[freed.field]]
        for index in range(first, first + self._capacity) if freed.field is None else [first + i for i in freed.rows]:
            for kept in fields:
                cell = kept.pop(index, None)
                self.bytes -= len(cell[1]) if cell is not None else 0
