"""Compaction: bounded files, an unharmed writer, and no moment at which a kill loses a record."""

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.transfer_queue.journal.conftest import everything
from tests.transfer_queue.journal.folds import kept
from transfer_queue.errors import JournalError
from transfer_queue.journal import CompactionPolicy, Compactor, Journal, Outcome, Recovered
from transfer_queue.journal.folder import COMPACTING, Folder, Lock

Begin = Callable[..., tuple[Journal, Recovered]]
FOLDS = "tests.transfer_queue.journal.folds"


def fill(journal: Journal, numbers: range) -> list[bytes]:
    written = [b"%d " % number * (number % 9) for number in numbers]
    for record in written:
        journal.append(record)
        journal.commit()
    return written


def finish(compactor: Compactor) -> Outcome:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        descriptor = compactor.fileno()
        assert descriptor is not None
        select.select([descriptor], [], [], 1.0)
        if (outcome := compactor.poll()) is not None:
            return outcome
    raise AssertionError("the compaction did not end")


def command_line(*arguments: object) -> tuple[int, dict[str, object]]:
    command = [sys.executable, "-m", "transfer_queue.journal.compact", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = run.stdout.splitlines()
    return run.returncode, json.loads(line)


def test_by_hand_it_answers_with_one_line_and_leaves_only_what_is_needed(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    written = fill(journal, range(50))
    journal.seal()
    written += fill(journal, range(50, 100))
    upto = journal.seal()
    code, answer = command_line(folder, upto, f"{FOLDS}:keep_all")
    written += fill(journal, range(100, 120))
    again = command_line(folder, upto, f"{FOLDS}:keep_all")
    journal.close()

    size = sum(4 + len(record) for record in written[:100])
    assert (code, answer["snapshot"], answer["bytes"], answer["records"]) == (0, 2, size, 100)
    assert (again[0], again[1]["bytes"], again[1]["records"]) == (0, size, 0)
    assert {path.name for path in folder.glob("s*")} == {"snapshot-0000000002.snap", "segment-0000000003.log"}
    assert (folder / "snapshot-0000000002.snap").stat().st_mode & 0o777 == 0o600
    assert everything(folder) == (written, [])


def test_the_writer_goes_on_while_it_runs_again_and_again(folder: Path, begin: Begin) -> None:
    journal, _ = begin(segment_bytes=4000)
    written, outcomes = [], []
    with Compactor(journal, f"{FOLDS}:keep_all_slowly") as compactor:
        for number in range(3000):
            written += fill(journal, range(number, number + 1))
            compactor.consider()
            outcomes += [outcome for outcome in [compactor.poll()] if outcome]
            time.sleep(0.0002)
        if compactor.pid:
            outcomes.append(finish(compactor))
    held = journal.bytes_since_snapshot
    newest = max(outcomes, key=lambda outcome: outcome.upto)
    assert journal.snapshot_bytes == newest.snapshot_bytes
    journal.close()
    journal, recovered = begin()

    assert len(outcomes) >= 1
    assert all(outcome.ok for outcome in outcomes)
    assert recovered.snapshot is not None
    assert len(recovered.snapshot) == newest.snapshot_bytes
    assert kept(recovered.snapshot) + list(recovered.records) == written
    assert abs(journal.bytes_since_snapshot - held) <= 200


def test_never_two_at_once_and_killed_at_close(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    written = fill(journal, range(500))
    compactor = Compactor(journal, f"{FOLDS}:keep_all_slowly")
    assert compactor.fileno() is None
    assert compactor.poll() is None
    assert compactor.begin(journal.seal())
    pid = compactor.pid
    assert pid is not None
    assert not compactor.begin(1)
    assert not compactor.consider()
    assert compactor.pid == pid
    compactor.close()
    compactor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert compactor.begin(1)
    assert finish(compactor).ok
    compactor.close()
    journal.close()

    assert everything(folder) == (written, [])


def test_two_processes_do_not_compact_one_folder(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    fill(journal, range(5))
    with Lock(Folder(folder), COMPACTING, "compacting"):
        code, answer = command_line(folder, journal.seal(), f"{FOLDS}:keep_all")

    assert (code, answer) == (
        1,
        {"error": f"process {os.getpid()} is already compacting the journal {folder}: end it first"},
    )


@pytest.mark.parametrize(
    ("fold", "sentence"),
    [
        ("keep_one", "the fold stopped after 1 records and left others unread"),
        ("raise_an_error", "failed: KeyError: 'no such partition'"),
        ("leave", "compaction ended with code 7 without a word"),
        ("nothing_of_that_name", "cannot be imported: module 'tests"),
    ],
)
def test_a_fold_that_fails_costs_nothing(folder: Path, begin: Begin, fold: str, sentence: str) -> None:
    journal, _ = begin()
    written = fill(journal, range(20))
    with Compactor(journal, f"{FOLDS}:{fold}") as compactor:
        assert compactor.begin(journal.seal())
        outcome = finish(compactor)
        assert outcome == compactor.outcome
    journal.close()

    assert not outcome.ok
    assert sentence in outcome.error
    assert everything(folder) == (written, [])


def test_orders_that_make_no_sense_are_sentences(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    fill(journal, range(20))

    assert "is not sealed: there is no segment 2" in str(command_line(folder, 1, f"{FOLDS}:keep_all"))
    assert "names no function: write module:function" in str(command_line(folder, 1, FOLDS))


def test_a_damaged_segment_is_not_compacted_away(folder: Path, begin: Begin) -> None:
    journal, _ = begin()
    fill(journal, range(20))
    upto = journal.seal()
    path = folder / "segment-0000000001.log"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, answer = command_line(folder, upto, f"{FOLDS}:keep_all")

    assert code == 1
    assert "is damaged at offset" in str(answer)
    assert not list(folder.glob("snapshot*"))
    assert path.read_bytes() == content


def test_it_is_nice_has_one_thread_and_may_print(begin: Begin) -> None:
    journal, _ = begin()
    fill(journal, range(3))
    with Compactor(journal, f"{FOLDS}:talk") as compactor:
        compactor.begin(journal.seal())
        assert finish(compactor).ok
    journal.close()
    _, recovered = begin()

    assert recovered.snapshot is not None
    assert bytes(recovered.snapshot) == b"19 1"


def test_a_failing_compaction_is_warned_of_and_the_writer_goes_on(
    folder: Path, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    journal, _ = begin(segment_bytes=200)
    written = []
    with (
        caplog.at_level(logging.WARNING),
        Compactor(journal, "no_such_module:fold", policy=CompactionPolicy(200), clock=lambda: now) as compactor,
    ):
        for round_ in range(3):
            written += fill(journal, range(50 * round_, 50 * (round_ + 1)))
            while not compactor.consider():
                time.sleep(0.001)  # the one before is on its way out
            assert not finish(compactor).ok
            assert not compactor.consider()
            now += 10
    journal.close()

    assert len(caplog.records) == 1
    assert "grows: the fold no_such_module:fold cannot be imported: No module named" in caplog.text
    assert everything(folder) == (written, [])


def test_a_compaction_that_cannot_be_started_is_an_outcome(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = begin()
    fill(journal, range(3))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with Compactor(journal, f"{FOLDS}:keep_all") as compactor:
        assert not compactor.begin(journal.seal())
        assert compactor.outcome is not None
        assert "compaction cannot be started: [Errno 2]" in compactor.outcome.error


def test_a_large_snapshot_is_streamed_and_mapped(folder: Path, begin: Begin) -> None:
    journal, _ = begin(segment_bytes=1 << 30)
    written = [bytes([number]) * (4 << 20) for number in range(8)]
    for record in written:
        journal.append(record)
    with Compactor(journal, f"{FOLDS}:keep_all") as compactor:
        compactor.begin(journal.seal())
        assert finish(compactor).ok
    journal.close()

    assert everything(folder) == (written, [])


def test_opening_waits_only_so_long_for_a_compaction(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transfer_queue.journal.journal as module

    Journal.open(folder)[0].close()
    monkeypatch.setattr(module, "ORPHAN_S", 0.05)
    with Lock(Folder(folder), COMPACTING, "compacting"), pytest.raises(JournalError, match="is already compacting"):
        Journal.open(folder)
    assert everything(folder) == ([], [])
