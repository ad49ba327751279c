"""What a journal holds when it is opened: never more than a prefix of what was written, never a changed record.

The newest whole snapshot, then every later segment in order, up to the first record that is not as it was written.
What lies behind that is cut off if it is the torn end of the last segment, and put aside as `*.damaged` otherwise; a
warning says what and where.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transfer_queue.journal import snapshot as snapshots
from transfer_queue.journal.folder import Folder
from transfer_queue.journal.format import HEADER_BYTES, START, Mark
from transfer_queue.journal.reading import SegmentReader, replay, segment_header


@dataclass(frozen=True)
class Recovered:
    """What was written before. The `count` records follow `snapshot`; read them once, before the next compaction."""

    snapshot: memoryview | None
    records: Iterator[bytes]
    count: int
    warnings: list[str] = field(default_factory=list)


@dataclass
class Standing:
    """Where a writer goes on: the number of its segment, what that follows, and the bytes that the journal holds."""

    number: int
    follows: Mark
    snapshot: int = 0
    snapshot_bytes: int = 0
    segment_bytes: dict[int, int] = field(default_factory=dict)


@dataclass
class _Fault:
    """Where reading ended too early: a segment that is missing, or whose bytes from `offset` on are no good."""

    number: int
    offset: int
    kind: str
    """missing, torn, damaged or detached (it does not follow the segment before it)."""


def recover(folder: Folder, identity: bytes) -> tuple[Recovered, Standing]:
    """Read everything, repair the folder, and say where to go on; another queue's journal is refused untouched."""
    for number in folder.segments():
        segment_header(folder, number, identity)
    header, damaged = snapshots.newest(folder, 1 << 62, identity)
    base, begin = (header.number, header.mark) if header else (0, START)
    standing = Standing(base + 1, begin, base, header.size if header else 0)
    count, fault = _survey(folder, standing)
    warnings = [_damaged_snapshot(folder, number, base) for number in damaged]
    if fault is not None:
        warnings.append(_repair(folder, fault, count))
    _tidy(folder, standing)
    records = replay(folder, identity, begin, range(base + 1, standing.number), standing.follows)
    return Recovered(snapshots.view(folder, header) if header else None, records, count, warnings), standing


def _survey(folder: Folder, standing: Standing) -> tuple[int, _Fault | None]:
    """Read every segment behind the snapshot, moving `standing` along; records found, and where that had to end."""
    count = 0
    for number in [number for number in folder.segments() if number > standing.snapshot]:
        if number != standing.number:
            return count, _Fault(standing.number, 0, "missing")
        with SegmentReader(folder.segment(number), number) as reader:
            if reader.header is not None and reader.header.mark != standing.follows:
                return count, _Fault(number, 0, "detached")
            following = folder.segment(number + 1).exists() and segment_header(folder, number + 1, None)
            fault = _read(reader, following.mark.offset if following else None)
            count += reader.count
            if reader.count:
                standing.number, standing.follows = number + 1, reader.mark
                standing.segment_bytes[number] = reader.mark.offset
            if fault is None and not reader.count and following:
                fault = "torn"  # nobody seals an empty segment
            if fault is not None:
                return count, _Fault(number, reader.mark.offset, fault)
    return count, None


def _read(reader: SegmentReader, stop: int | None) -> str | None:
    try:
        for _ in reader.records(stop):
            pass
    except OSError:
        return "damaged"
    return reader.fault or None


def _repair(folder: Folder, fault: _Fault, count: int) -> str:
    """Put aside or cut off what lies behind a fault; the warning."""
    path = folder.segment(fault.number)
    later = [number for number in folder.segments() if number > fault.number]
    size = path.stat().st_size if path.exists() else 0
    behind = sum(folder.segment(number).stat().st_size for number in later)
    aside = _put_aside(folder, fault, later)
    if fault.kind == "torn" and not later:
        return (
            f"{path}: the last write did not reach the disk whole: cut {size - fault.offset} bytes at offset "
            f"{fault.offset}; the {count} records before it are kept"
        )
    what = {"missing": "is missing", "detached": "does not follow the segment before it, whose end is lost"}
    return (
        f"{path} {what.get(fault.kind, f'is damaged at offset {fault.offset}')}: the {count} records before that are "
        f"kept, {size - fault.offset} bytes of it and {len(later)} later segments ({behind} bytes) are lost to the "
        f"replay, and put aside as {', '.join(aside) or 'nothing, for nothing is there'}"
    )


def _put_aside(folder: Folder, fault: _Fault, later: list[int]) -> list[str]:
    """From the last to the first, so that a crash on the way leaves the same fault to find; names of what is kept."""
    path = folder.segment(fault.number)
    size = path.stat().st_size if path.exists() else 0
    aside = []
    if 0 < fault.offset < size and (fault.kind == "damaged" or later):
        aside.append(folder.copy_aside(path, fault.offset).name)
    aside += [folder.put_aside(folder.segment(number)).name for number in reversed(later)]
    if fault.kind in ("detached", "damaged") and fault.offset == 0:
        aside.append(folder.put_aside(path).name)
    elif fault.kind != "missing":
        _cut(path, fault.offset)
    folder.sync()
    return sorted(aside)


def _cut(path: Path, offset: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.truncate(offset)
        os.fsync(file.fileno())


def _damaged_snapshot(folder: Folder, number: int, base: int) -> str:
    path = folder.snapshot(number)
    aside = folder.put_aside(path)
    instead = folder.snapshot(base).name if base else "no snapshot"
    return f"{path} is damaged and put aside as {aside.name}: starting from {instead} and the segments after it"


def _tidy(folder: Folder, standing: Standing) -> None:
    """Remove what the snapshot stands for, what a compaction left half written, and segments without a record."""
    folder.discard_temporary()
    folder.discard_before(standing.snapshot)
    for number in folder.segments():
        path = folder.segment(number)
        if number >= standing.number and path.stat().st_size <= HEADER_BYTES:
            path.unlink()
