"""Whatever happens to the files: a replay gives a prefix of what was written, never a changed record, never a crash."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer_queue.journal.conftest import everything
from tests.transfer_queue.journal.folds import keep_all
from transfer_queue.errors import JournalError
from transfer_queue.journal import Journal
from transfer_queue.journal.compact import compact
from transfer_queue.journal.folder import Folder
from transfer_queue.journal.format import HEADER_BYTES

Files = dict[str, bytes]
RECORDS = [b"%d " % number * (number % 7) for number in range(24)]
PER_SEGMENT = 6


def in_memory(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def on_disk(files: Files) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder)


def made() -> dict[str, Files]:
    """Journals with four segments: plain, compacted up to the second, and compacted but killed before the removal."""
    with on_disk({}) as folder:
        journal, _ = Journal.open(folder)
        with journal:
            before: Files = {}
            for number, record in enumerate(RECORDS):
                journal.append(record)
                journal.commit()
                if number + 1 in (PER_SEGMENT, 2 * PER_SEGMENT, 3 * PER_SEGMENT):
                    upto = journal.seal()
                if number + 1 == 2 * PER_SEGMENT:
                    before = in_memory(folder)
                    compact(Folder(folder), 1, keep_all)
                    before |= in_memory(folder)
                    compact(Folder(folder), upto, keep_all)
        after = in_memory(folder)
    plain = before | after
    return {
        "plain": {name: content for name, content in plain.items() if "snap" not in name},
        "compacted": after,
        "killed before the removal": plain,
    }


JOURNALS = made()
LAST = "segment-0000000004.log"


def segment(number: int) -> str:
    return f"segment-{number:010}.log"


@st.composite
def damaged(draw: st.DrawFn) -> Files:
    """A journal to which something happened, once or twice."""
    files = dict(JOURNALS[draw(st.sampled_from(sorted(JOURNALS)))])
    for _ in range(draw(st.integers(1, 2))):
        names = sorted(name for name in files if name.startswith("s"))
        name = draw(st.sampled_from(names)) if names else LAST
        content = files.get(name, b"")
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "zeros", "garbage", "lose", "rename", "insert", "drop"]))
        junk = draw(st.binary(min_size=1, max_size=300))
        if kind == "flip" and content:
            bit = 1 << draw(st.integers(0, 7))
            files[name] = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        elif kind == "cut":
            files[name] = content[:at]
        elif kind == "zeros":
            files[name] = content[:at] + bytes(len(content) - at + draw(st.integers(0, 100)))
        elif kind == "garbage":
            files[name] = content + junk
        elif kind == "lose":
            files.pop(name, None)
        elif kind == "rename":
            files[draw(st.sampled_from([segment(2), segment(5), "snapshot-0000000003.snap"]))] = content
        elif kind == "insert":
            files[name] = content[:at] + junk + content[at:]
        elif kind == "drop":
            files[name] = content[:at] + content[at + len(junk) :]
    return files


@settings(max_examples=500, deadline=None)
@given(damaged())
def test_damage_of_any_kind_leaves_a_prefix_and_a_journal_that_works(files: Files) -> None:
    with on_disk(files) as folder:
        found, warnings = everything(folder)
        assert found == RECORDS[: len(found)]
        assert warnings or found == RECORDS or ends_early(files)
        journal, recovered = Journal.open(folder)
        with journal:
            assert recovered.warnings == []
            journal.append(b"new")
        assert everything(folder) == ([*found, b"new"], [])


def ends_early(files: Files) -> bool:
    """Whether the end is missing in a way that cannot be told from never having been written."""
    last = files.get(LAST)
    return last is None or (last != JOURNALS["plain"][LAST] and JOURNALS["plain"][LAST].startswith(last))


@pytest.mark.parametrize("length", range(len(JOURNALS["plain"][LAST])))
def test_the_last_segment_cut_at_any_byte(length: int) -> None:
    whole = JOURNALS["plain"][LAST]
    with on_disk({**JOURNALS["plain"], LAST: whole[:length]}) as folder:
        found, warnings = everything(folder)
        ends = [HEADER_BYTES]
        for record in RECORDS[3 * PER_SEGMENT :]:
            ends.append(ends[-1] + 8 + len(record))
        kept = max((number for number, end in enumerate(ends) if end <= length), default=0)
        offset = ends[kept] if length >= HEADER_BYTES else 0

        assert found == RECORDS[: 3 * PER_SEGMENT + kept]
        if length in ends:
            assert warnings == []
        else:
            (warning,) = warnings
            assert warning == (
                f"{folder / LAST}: the last write did not reach the disk whole: cut {length - offset} bytes at offset "
                f"{offset}; the {len(found)} records before it are kept"
            )
        assert not list(folder.glob("*.damaged"))


@pytest.mark.parametrize("name", sorted(name for name in JOURNALS["killed before the removal"] if name.startswith("s")))
def test_every_bit_flipped_in_turn(name: str) -> None:
    """Every 61st bit, which reaches every field and every position within a byte."""
    files = JOURNALS["killed before the removal"]
    needed = name in ("snapshot-0000000002.snap", segment(3), LAST)
    for bit in range(0, 8 * len(files[name]), 61):
        content = bytearray(files[name])
        content[bit // 8] ^= 1 << bit % 8
        with on_disk({**files, name: bytes(content)}) as folder:
            found, warnings = everything(folder)

        assert found == RECORDS[: len(found)]
        assert bool(warnings) == needed
        if name.startswith("snapshot"):
            assert found == RECORDS  # from the snapshot before, whose segments are still there


def test_zeros_behind_the_last_record_are_a_torn_tail() -> None:
    with on_disk({**JOURNALS["plain"], LAST: JOURNALS["plain"][LAST] + bytes(5000)}) as folder:
        found, warnings = everything(folder)

        assert found == RECORDS
        assert len(warnings) == 1
        assert "cut 5000 bytes at offset" in warnings[0]
        assert not list(folder.glob("*.damaged"))


def test_damage_in_the_middle_stops_the_replay_there_and_the_rest_is_kept_aside() -> None:
    files = dict(JOURNALS["plain"])
    content = files[segment(2)]
    at = content.index(RECORDS[PER_SEGMENT + 3]) + 1
    files[segment(2)] = content[:at] + b"X" + content[at + 1 :]
    with on_disk(files) as folder:
        found, warnings = everything(folder)

        assert found == RECORDS[: PER_SEGMENT + 3]
        offset = at - 9
        behind = len(files[segment(3)]) + len(files[LAST])
        (warning,) = warnings
        assert warning == (
            f"{folder / segment(2)} is damaged at offset {offset}: the 9 records before that are kept, "
            f"{len(content) - offset} bytes of it and 2 later segments ({behind} bytes) are lost to the replay, and "
            f"put aside as {segment(2)}.damaged, {segment(3)}.damaged, {LAST}.damaged"
        )
        assert (folder / f"{segment(2)}.damaged").read_bytes() == files[segment(2)][offset:]
        assert (folder / f"{segment(3)}.damaged").read_bytes() == files[segment(3)]


def test_a_missing_segment_stops_the_replay_before_it() -> None:
    files = {name: content for name, content in JOURNALS["plain"].items() if name != segment(2)}
    with on_disk(files) as folder:
        found, warnings = everything(folder)

        assert found == RECORDS[:PER_SEGMENT]
        assert len(warnings) == 1
        assert f"{segment(2)} is missing: the 6 records before that are kept, 0 bytes of it and 2 later" in warnings[0]
        assert (folder / f"{LAST}.damaged").read_bytes() == files[LAST]


def test_a_sealed_segment_that_lost_whole_records_is_noticed() -> None:
    files = dict(JOURNALS["plain"])
    files[segment(2)] = files[segment(2)][: -8 - len(RECORDS[2 * PER_SEGMENT - 1])]
    with on_disk(files) as folder:
        found, warnings = everything(folder)

        assert found == RECORDS[: 2 * PER_SEGMENT - 1]
        assert "does not follow the segment before it, whose end is lost" in warnings[0]


def test_names_that_are_taken_are_not_written_over() -> None:
    files = {**JOURNALS["plain"], f"{LAST}.damaged": b"of another time"}
    files[segment(3)] = b"nonsense" * 40
    with on_disk(files) as folder:
        everything(folder)

        assert (folder / f"{LAST}.damaged").read_bytes() == b"of another time"
        assert (folder / f"{LAST}.damaged.2").read_bytes() == files[LAST]


def test_a_disk_without_room_to_put_damage_aside_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    files = dict(JOURNALS["plain"])
    files[segment(3)] = files[segment(3)][: HEADER_BYTES + 12] + bytes([255]) + files[segment(3)][HEADER_BYTES + 13 :]
    with on_disk(files) as folder:
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "copy_aside", no_room)
            with pytest.raises(JournalError, match=r"cannot be opened: No space left on device \(somewhere\)"):
                Journal.open(folder)
        assert everything(folder)[0] == RECORDS[: 2 * PER_SEGMENT]


def test_bytes_behind_the_end_that_the_next_segment_names_are_no_damage() -> None:
    files = {**JOURNALS["plain"], segment(2): JOURNALS["plain"][segment(2)] + b"of a burst that failed"}
    with on_disk(files) as folder:
        assert everything(folder) == (RECORDS, [])


def test_a_leftover_of_a_killed_compaction_is_swept() -> None:
    files = {**JOURNALS["killed before the removal"], "snapshot-0000000003.snap.tmp": b"half"}
    with on_disk(files) as folder:
        assert everything(folder) == (RECORDS, [])
        names = {path.name for path in folder.iterdir() if path.name.startswith("s")}

    assert names == {"snapshot-0000000002.snap", segment(3), LAST, segment(5)}


def test_a_million_small_records_are_replayed(folder: Path) -> None:
    journal, _ = Journal.open(folder)
    with journal:
        for number in range(1_000_000):
            journal.append(b"%08d" % number)
            if number % 1000 == 999:
                journal.commit()
    began = time.perf_counter()
    journal, recovered = Journal.open(folder)
    with journal:
        for number, record in enumerate(recovered.records):
            assert int(record) == number
    print(f"{1e6 / (time.perf_counter() - began):,.0f} records verified and replayed a second")  # pytest -rP shows it

    assert (number, recovered.count, recovered.warnings) == (999_999, 1_000_000, [])
