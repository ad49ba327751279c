"""The catalog: where the values of every row lie, by partition and field.

What one put brings for one field is one chunk, and goes out again as it came when the same rows are asked for, as they
mostly are. Rows are freed one by one, whatever came with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from transfer_queue import wire
from transfer_queue.errors import FieldError, SamplerError
from transfer_queue.ledger import Freed
from transfer_queue.ledger.shape import ROW_BITS
from transfer_queue.storage.chunk import Chunk, check_dtypes
from transfer_queue.storage.segments import Range, Segments
from transfer_queue.transport.framing import LONGEST_MESSAGE

ROW_MASK = (1 << ROW_BITS) - 1
NOWHERE = -1

Found = tuple[wire.Column, bytes, bytes | None]
"""A column, the values of it that lie in the controller, and for the others where each row lies."""


class _FieldRows:
    """One field of one partition: for each row the chunk that holds it and its position there."""

    __slots__ = ("chunk_of", "chunks", "next", "position")

    def __init__(self) -> None:
        self.chunks: dict[int, Chunk] = {}
        self.next = 0
        self.chunk_of: NDArray[np.int32] = np.full(64, NOWHERE, dtype=np.int32)
        self.position: NDArray[np.int32] = np.zeros(64, dtype=np.int32)

    def add(self, chunk: Chunk) -> None:
        rows = chunk.rows
        highest = rows[0] if len(rows) == 1 else max(rows)
        if highest >= len(self.chunk_of):
            self._grow(highest + 1)
        number = self.next
        self.next += 1
        self.chunks[number] = chunk
        if len(rows) == 1:
            self.chunk_of[highest], self.position[highest] = number, 0
        else:
            self.chunk_of[rows] = number
            self.position[rows] = np.arange(len(rows), dtype=np.int32)

    def _grow(self, rows: int) -> None:
        more = max(rows, 2 * len(self.chunk_of)) - len(self.chunk_of)
        self.chunk_of = np.concatenate([self.chunk_of, np.full(more, NOWHERE, dtype=np.int32)])
        self.position = np.concatenate([self.position, np.zeros(more, dtype=np.int32)])

    def find(self, row: int) -> tuple[Chunk, int] | None:
        number = int(self.chunk_of[row]) if row < len(self.chunk_of) else NOWHERE
        return (self.chunks[number], int(self.position[row])) if number != NOWHERE else None

    def take_out(self, row: int) -> tuple[Chunk, int] | None:
        """Forget where a row lies; its chunk goes with its last row."""
        found = self.find(row)
        if found is not None:
            number = int(self.chunk_of[row])
            self.chunk_of[row] = NOWHERE
            found[0].live -= 1
            if not found[0].live:
                del self.chunks[number]
        return found

    def live(self, chunk: Chunk, number: int) -> list[int]:
        """The positions of a chunk whose rows are not freed."""
        if chunk.live == len(chunk.rows):
            return list(range(len(chunk.rows)))
        positions: list[int] = np.flatnonzero(self.chunk_of[chunk.rows] == number).tolist()
        return positions


class Catalog:
    """Where values lie; a field has one dtype for the life of the queue. Errors leave everything as it was."""

    def __init__(self) -> None:
        self.partitions: dict[int, dict[str, _FieldRows]] = {}
        self.dtypes: dict[str, str] = {}
        self.segments = Segments()
        self.stored_bytes = 0

    def check(self, chunks: Sequence[Chunk]) -> None:
        """`FieldError` if a field changes its dtype, or values lie where nothing can lie."""
        check_dtypes(self.dtypes, chunks)
        self.segments.check((*chunk.extent, chunk.size) for chunk in chunks if chunk.frame is None)

    def write(self, indexes: list[int], chunks: Sequence[Chunk]) -> None:
        """Note where the values of these rows lie; the ledger has made sure that none is there already."""
        serial = indexes[0] >> ROW_BITS
        rows = [index & ROW_MASK for index in indexes]
        whole = len(indexes) == 1 or all(index >> ROW_BITS == serial for index in indexes)
        for chunk in chunks:
            self.dtypes[chunk.column.name] = chunk.column.dtype
            self.stored_bytes += chunk.size
            if chunk.frame is None:
                self.segments.fill(*chunk.extent, chunk.size)
            if whole:
                self._field(serial, chunk.column.name).add(chunk.placed_at(rows))
            else:
                self._add_by_partition(indexes, rows, chunk)

    def _add_by_partition(self, indexes: list[int], rows: list[int], chunk: Chunk) -> None:
        """Rows of several partitions that came together lie in one chunk each, so that each can go alone."""
        positions: dict[int, list[int]] = {}
        for position, index in enumerate(indexes):
            positions.setdefault(index >> ROW_BITS, []).append(position)
        for serial, chosen in positions.items():
            field = self._field(serial, chunk.column.name)
            if chunk.frame is not None:
                field.add(chunk.part(chosen).placed_at([rows[position] for position in chosen]))
                continue
            for position in chosen:
                field.add(chunk.alone(position).placed_at([rows[position]]))

    def read(self, name: str, indexes: list[int], most: int = LONGEST_MESSAGE) -> Found:
        """The values of one field of these rows, in this order, or where they lie; `FieldError` names a row without.

        `FieldError` too, before anything is copied, if more than `most` bytes of them lie here.
        """
        rows = [index & ROW_MASK for index in indexes]
        first = self._find(name, indexes[0])[0]
        if first.live == len(rows) and first.rows == rows and self._of_one_partition(indexes):
            if first.frame is not None:
                check_answer(len(first.frame), most)
                return first.column, first.frame, None
            return first.column, b"", _places_of(first)
        found = [self._find(name, index) for index in indexes]
        check_answer(sum([chunk.sizes[position] for chunk, position in found if chunk.frame is not None]), most)
        return self._collect(name, found)

    def _collect(self, name: str, found: list[tuple[Chunk, int]]) -> Found:
        dtype = self.dtypes[name]
        sizes = [chunk.sizes[position] for chunk, position in found] if dtype == wire.OBJECT else []
        shapes = [chunk.shape(position) for chunk, position in found] if dtype != wire.OBJECT else []
        if shapes and shapes.count(shapes[0]) == len(shapes):
            shapes = shapes[:1]
        column = wire.Column(name, dtype, shapes, sizes)
        if all(chunk.frame is not None for chunk, _ in found):
            return column, b"".join([chunk.value(position) for chunk, position in found]), None
        here: list[bytes] = []
        places, start = np.empty((len(found), 3), dtype=np.int64), 0
        for row, (chunk, position) in enumerate(found):
            if chunk.frame is None:
                places[row] = chunk.place(position)
            else:
                here.append(chunk.value(position))
                places[row] = (NOWHERE, start, len(here[-1]))
                start += len(here[-1])
        return column, b"".join(here), places.tobytes()

    def scalars(self, name: str, indexes: Sequence[int]) -> list[Any]:
        """The values of a small field, decoded, for a sampler; `SamplerError` if they do not lie in the controller."""
        values: list[Any] = []
        for index in indexes:
            chunk, position = self._find(name, index)
            if chunk.frame is None:
                raise SamplerError(
                    f"field {name!r} is too large for a sampler to read: put small numbers, in a put of their own"
                )
            values.append(_decoded(chunk.column.dtype, chunk.value(position)))
        return values

    def glimpses(self, name: str, indexes: Sequence[int], most: int) -> list[wire.Glimpse | None]:
        """What each value begins with: at most `most` bytes, and none where it does not lie here."""
        fields = {serial: fields.get(name) for serial, fields in self.partitions.items()}
        found = []
        for index in indexes:
            field = fields.get(index >> ROW_BITS)
            there = field.find(index & ROW_MASK) if field is not None else None
            found.append(None if there is None else _glimpse(*there, most))
        return found

    def free(self, freed: Freed) -> None:
        """Forget what the ledger has given up."""
        if freed.field is None and not freed.rows:
            for field in self.partitions.pop(freed.serial, {}).values():
                for number, chunk in field.chunks.items():
                    self._free_chunk(chunk, field.live(chunk, number))
            return
        fields = self.partitions.get(freed.serial, {})
        for name in fields if freed.field is None else [freed.field]:
            if name in fields:
                for row in freed.rows:
                    found = fields[name].take_out(row)
                    if found is not None:
                        self._free_chunk(found[0], [found[1]])

    def _free_chunk(self, chunk: Chunk, positions: list[int]) -> None:
        if len(positions) == len(chunk.sizes):
            ranges: list[Range] = [(*chunk.extent, chunk.size)]
        else:
            ranges = [chunk.place(position) for position in positions]
        self.stored_bytes -= sum(size for _, _, size in ranges)
        if chunk.frame is None:
            self.segments.free(ranges)

    def lose(self, name: str, indexes: Sequence[int]) -> None:
        """Forget values whose storage died."""
        for index in indexes:
            self.free(Freed(index >> ROW_BITS, name, (index & ROW_MASK,)))

    def lying_in(self, segments: set[int]) -> dict[str, list[int]]:
        """The rows of each field whose values lie in these segments."""
        rows: dict[str, list[int]] = {}
        for serial, fields in self.partitions.items():
            for name, field in fields.items():
                for number, chunk in field.chunks.items():
                    if chunk.frame is None and chunk.extent[0] in segments:
                        base = serial << ROW_BITS
                        rows.setdefault(name, []).extend(base + chunk.rows[p] for p in field.live(chunk, number))
        return rows

    def _field(self, serial: int, name: str) -> _FieldRows:
        fields = self.partitions.get(serial)
        if fields is None:
            fields = self.partitions[serial] = {}
        if name not in fields:
            fields[name] = _FieldRows()
        return fields[name]

    def _find(self, name: str, index: int) -> tuple[Chunk, int]:
        field = self.partitions.get(index >> ROW_BITS, {}).get(name)
        found = field.find(index & ROW_MASK) if field is not None else None
        if found is None:
            raise FieldError(f"row {index} has no field {name!r}: it was not produced")
        return found

    @staticmethod
    def _of_one_partition(indexes: list[int]) -> bool:
        serial = indexes[0] >> ROW_BITS
        return all(index >> ROW_BITS == serial for index in indexes)


def size_of(places: bytes) -> int:
    """Bytes of all rows that lie there."""
    return int(np.frombuffer(places, dtype=np.int64)[2::3].sum())


def check_answer(size: int, most: int) -> None:
    """`FieldError` if so many bytes are more than may still go into the answer."""
    if size > most:
        raise FieldError(f"get_data asks for more than the {LONGEST_MESSAGE} bytes of one message: ask for fewer rows")


def _places_of(chunk: Chunk) -> bytes:
    """Where each row of a whole chunk lies."""
    segment, offset = chunk.extent
    places = np.empty((len(chunk.sizes), 3), dtype=np.int64)
    places[:, 0], places[:, 2] = segment, chunk.sizes
    places[:, 1] = offset + np.asarray(chunk.starts, dtype=np.int64)
    return places.tobytes()


def _glimpse(chunk: Chunk, position: int, most: int) -> wire.Glimpse:
    start, size = chunk.starts[position], chunk.sizes[position]
    head = b"" if chunk.frame is None else chunk.frame[start : start + min(size, most)]
    return wire.Glimpse(chunk.column.dtype, chunk.shape(position), size, head)


def _decoded(dtype: str, value: bytes) -> Any:
    if dtype == wire.OBJECT:
        return msgspec.msgpack.decode(value)
    if dtype == "bfloat16":
        return float(np.frombuffer(b"\0\0" + value, dtype=np.float32)[0]) if len(value) == 2 else value
    try:
        numbers = np.frombuffer(value, dtype=np.dtype(dtype))
    except TypeError:
        return value
    return numbers[0].item() if len(numbers) == 1 else numbers.tolist()
