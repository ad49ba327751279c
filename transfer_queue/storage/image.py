"""The catalog as plain data, for snapshots: what is freed is left out, what is known of segments goes with it."""

from __future__ import annotations

import msgspec
import numpy as np

from transfer_queue import wire
from transfer_queue.ledger.shape import ROW_BITS
from transfer_queue.storage.catalog import Catalog
from transfer_queue.storage.chunk import Chunk
from transfer_queue.storage.far_reader import FarReader
from transfer_queue.storage.segments import Segment
from transfer_queue.wire import INLINE, Extent

READ_S = 300.0
"""For one field of a step, where it lies in storage actors."""


class ChunkImage(msgspec.Struct, array_like=True, frozen=True):
    """The rows of one chunk that are there, and their values or where these lie."""

    column: wire.Column
    frame: bytes | None
    extent: Extent
    sizes: list[int]
    rows: list[int]


class SegmentImage(msgspec.Struct, array_like=True, frozen=True):
    number: int
    path: str
    size: int
    owner: int
    orphan: bool
    free: list[tuple[int, int]]
    client: str = ""


class CatalogImage(msgspec.Struct, array_like=True, frozen=True):
    """A whole catalog; `partitions` by serial and field."""

    dtypes: dict[str, str]
    partitions: dict[int, dict[str, list[ChunkImage]]]
    segments: list[SegmentImage]
    next_segment: int


def image_of(catalog: Catalog) -> CatalogImage:
    """The catalog as it is now."""
    partitions: dict[int, dict[str, list[ChunkImage]]] = {}
    for serial, fields in catalog.partitions.items():
        images = {
            name: [
                image
                for number, chunk in field.chunks.items()
                for image in _chunk_images(chunk, field.live(chunk, number))
            ]
            for name, field in fields.items()
            if field.chunks
        }
        if images:
            partitions[serial] = images
    segments = [
        SegmentImage(
            each.number, each.path, each.size, each.owner, each.orphan, catalog.segments.all_free(each), each.client
        )
        for each in catalog.segments.known.values()
    ]
    return CatalogImage(catalog.dtypes, partitions, segments, catalog.segments.next_segment)


def _chunk_images(chunk: Chunk, live: list[int]) -> list[ChunkImage]:
    rows = [chunk.rows[position] for position in live]
    if len(live) == len(chunk.rows):
        return [ChunkImage(chunk.column, chunk.frame, chunk.extent, chunk.sizes, rows)]
    if chunk.frame is not None:
        part = chunk.part(live)
        return [ChunkImage(part.column, part.frame, part.extent, part.sizes, rows)]
    alone = [chunk.alone(position) for position in live]
    return [
        ChunkImage(each.column, None, each.extent, each.sizes, [row]) for each, row in zip(alone, rows, strict=True)
    ]


def catalog_of(image: CatalogImage) -> Catalog:
    """The catalog again."""
    catalog = Catalog()
    segments = catalog.segments
    for each in image.segments:
        free, client = list(each.free), each.client
        found = Segment(each.number, each.path, each.size, each.owner, 0, each.orphan, free, client=client)
        for offset, size in free:
            found.taken.add(offset, offset + size)
        segments.known[each.number] = found
    segments.next_segment = image.next_segment
    for serial, fields in image.partitions.items():
        for _name, chunks in fields.items():
            for chunk in chunks:
                restored = Chunk(chunk.column, chunk.frame, chunk.extent, chunk.sizes)
                catalog.write([serial << ROW_BITS | row for row in chunk.rows], [restored])
    catalog.dtypes.update(image.dtypes)
    return catalog


def brought_in(catalog: Catalog) -> None:
    """Let every value that lies in a segment lie in the catalog itself; `FieldLostError` if one cannot be read."""
    reader = FarReader({each.number: each.path for each in catalog.segments.known.values()})
    for fields in catalog.partitions.values():
        for field in fields.values():
            placed = [chunk for chunk in field.chunks.values() if chunk.frame is None]
            places = [(*chunk.extent, chunk.size) for chunk in placed]
            reader.fetch(np.array(places, np.int64).reshape(-1, 3), READ_S)
            for chunk in placed:
                chunk.frame = reader.view(*chunk.extent, chunk.size).tobytes()
                chunk.extent = INLINE
    catalog.segments.known.clear()
