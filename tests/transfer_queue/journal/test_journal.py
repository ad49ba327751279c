"""What a writer sees: records come back as they were, one writer at a time, nothing written behind its back."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transfer_queue.journal.conftest import everything
from transfer_queue.errors import JournalError
from transfer_queue.journal import Journal, Recovered
from transfer_queue.journal.burst import Burst
from transfer_queue.journal.format import HEADER_BYTES, LARGEST, START

Begin = Callable[..., tuple[Journal, Recovered]]


def test_what_was_committed_comes_back_in_order_over_many_lives(folder: Path) -> None:
    written: list[bytes] = []
    for life in range(4):
        journal, recovered = Journal.open(folder, segment_bytes=200)
        with journal:
            assert list(recovered.records) == written
            assert (recovered.snapshot, recovered.warnings) == (None, [])
            for number in range(10):
                record = b"%d-%d" % (life, number) * number
                journal.append(record)
                journal.commit()
                written.append(record)

    assert everything(folder) == (written, [])
    assert len(list(folder.glob("segment-*.log"))) > 4


def test_a_record_is_the_concatenation_of_its_parts_of_any_kind(folder: Path, begin: Begin) -> None:
    big = np.arange(100_000, dtype=np.int32)
    parts = (b"head", bytearray(b"er"), memoryview(b"x" * 40_000), big.reshape(100, -1).data, b"", b"y" * 50_000)
    journal, _ = begin()
    journal.append(b"before")
    journal.append(*parts)
    journal.append()
    journal.append(memoryview(np.zeros((0, 3))))
    journal.append(b"behind")
    journal.commit()
    journal.close()

    whole = b"header" + b"x" * 40_000 + big.tobytes() + b"y" * 50_000
    assert everything(folder)[0] == [b"before", whole, b"", b"", b"behind"]


def test_a_burst_of_more_parts_than_one_call_takes_is_whole(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    big = bytes(range(256)) * 128
    for number in range(3000):
        journal.append(number.to_bytes(4, "big"), big)
    journal.commit()
    journal.close()

    assert everything(folder)[0] == [number.to_bytes(4, "big") + big for number in range(3000)]


def test_nothing_is_written_before_commit_and_close_commits(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    journal.append(b"one")
    assert (folder / "segment-0000000001.log").stat().st_size == HEADER_BYTES
    journal.close()
    journal.close()

    assert everything(folder)[0] == [b"one"]


def test_a_record_that_is_too_large_is_refused_alone(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    journal.append(b"one")
    with pytest.raises(JournalError, match="larger than 1,073,741,824: split it"):
        journal.append(memoryview(bytes(1 << 20)), *([bytes(1 << 20)] * (LARGEST >> 20)))
    journal.append(b"two")
    journal.close()

    assert everything(folder)[0] == [b"one", b"two"]


def test_folder_and_files_are_private(folder: Path, begin: Begin) -> None:
    usual = os.umask(0)
    try:
        begin()
    finally:
        os.umask(usual)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_folder_that_others_may_read_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(JournalError, match=r"is open to others \(mode 755, user"):
        Journal.open(folder)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be made"):
        Journal.open(tmp_path / "file" / "journal")
    with pytest.raises(JournalError, match="cannot be made"):
        Journal.open(tmp_path / "file")


def test_a_lock_that_cannot_be_taken_is_a_sentence(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "lock").mkdir()
    with pytest.raises(JournalError, match=r"cannot be opened: Is a directory \(.*/lock\)"):
        Journal.open(folder)


@pytest.mark.parametrize("arguments", [{"fsync_ms": -1.0}, {"fsync_ms": float("nan")}, {"segment_bytes": 0}])
def test_sizes_that_cannot_work_are_refused(folder: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(JournalError, match="must be 0 or more"):
        Journal.open(folder, **arguments)  # type: ignore[arg-type]


def test_a_second_writer_is_refused_and_told_who_the_first_is(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    with pytest.raises(JournalError, match=f"process {os.getpid()} is already writing the journal {folder}"):
        Journal.open(folder)
    other = f"from pathlib import Path; from transfer_queue.journal import Journal; Journal.open(Path({str(folder)!r}))"
    run = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} is already writing" in run.stderr
    journal.append(b"unharmed")
    journal.close()

    assert everything(folder)[0] == [b"unharmed"]


def test_another_identity_is_refused_and_nothing_is_touched(folder: Path, begin: Begin) -> None:
    journal, _ = begin(identity=b"mine")
    journal.append(b"one")
    journal.close()
    (folder / "snapshot-0000000009.snap.tmp").touch()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(JournalError, match="belongs to another queue"):
        Journal.open(folder, identity=b"yours")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    journal, recovered = begin(identity=b"mine")
    assert list(recovered.records) == [b"one"]


def test_another_format_version_is_refused(folder: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    import transfer_queue.journal.format as format_

    journal, _ = begin()
    journal.append(b"one")
    journal.close()
    monkeypatch.setattr(format_, "VERSION", 2)
    with pytest.raises(JournalError, match="is a journal of format 1 and this program reads format 2"):
        Journal.open(folder)


def test_seal_names_the_newest_complete_segment(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    assert journal.seal() == 0
    journal.append(b"one")
    assert journal.seal() == journal.seal() == 1
    journal.append(b"two")
    journal.close()

    assert [path.name for path in sorted(folder.glob("segment*"))] == [
        "segment-0000000001.log",
        "segment-0000000002.log",
    ]
    assert everything(folder)[0] == [b"one", b"two"]


def test_lives_without_a_record_leave_no_files_behind(folder: Path, begin: Begin) -> None:
    for _ in range(5):
        begin()[0].close()

    assert len(list(folder.glob("segment*"))) == 1


def test_bytes_since_the_snapshot_are_counted_across_lives(begin: Begin) -> None:
    journal, _ = begin()
    assert journal.bytes_since_snapshot == 0
    journal.append(bytes(100))
    journal.seal()
    journal.append(bytes(200))
    journal.commit()
    held = journal.bytes_since_snapshot
    journal.close()
    journal, _ = begin()

    assert 316 <= held <= journal.bytes_since_snapshot <= 316 + 2 * HEADER_BYTES


def test_a_closed_journal_says_so(begin: Begin) -> None:
    journal, _ = begin()
    journal.close()
    for act in (lambda: journal.append(b"x"), journal.commit, journal.seal):
        with pytest.raises(JournalError, match="is closed"):
            act()


FORKED = """
import os, sys, time
from pathlib import Path
from transfer_queue.journal import Journal
folder = Path(sys.argv[1])
journal, _ = Journal.open(folder)
journal.append(b"committed by the parent")
journal.commit()
journal.append(b"buffered at the fork")
child = os.fork()
if child == 0:
    for act in (lambda: journal.append(b"by the child"), journal.commit, journal.close):
        try:
            act()
        except ValueError as error:
            print(error, flush=True)
    os.read(0, 1)  # outlive the parent
    os._exit(0)
print(child, flush=True)
time.sleep(0.2)
os._exit(0) if sys.argv[2] == "die" else journal.close()
"""


@pytest.mark.parametrize(
    ("ending", "records"),
    [("die", [b"committed by the parent"]), ("close", [b"committed by the parent", b"buffered at the fork"])],
)
def test_a_forked_child_neither_writes_nor_holds_the_lock(folder: Path, ending: str, records: list[bytes]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(folder), ending]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.wait(20) == 0
        found = everything(folder)  # while the child is alive
        parent.stdin.write("x")
        parent.stdin.flush()
        said = parent.stdout.read()

    assert found == (records, [])
    assert said.count("and a forked child may not write it") == 2


@given(st.lists(st.lists(st.binary(max_size=20), max_size=3), max_size=5))
def test_a_burst_has_the_length_it_says(records: list[list[bytes]]) -> None:
    burst = Burst(START)
    for parts in records:
        burst.add(tuple(parts))

    assert sum(len(frame) for frame in burst.frames()) == burst.mark.offset


def test_the_journal_knows_nothing_of_the_queue_and_compaction_starts_light() -> None:
    program = "import sys, transfer_queue.journal.compact; print(*sorted(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()

    assert not {"numpy", "msgspec", "zmq", "torch", "ray", "asyncio"} & set(loaded)
    assert {name for name in loaded if name.startswith("transfer_queue.") and ".journal" not in name} == {
        "transfer_queue.clash", "transfer_queue.errors",
    }  # fmt: skip
