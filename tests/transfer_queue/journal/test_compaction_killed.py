"""Compaction that is killed, or loses its controller: whenever that happens, no record is lost."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transfer_queue.journal.conftest import everything
from tests.transfer_queue.journal.folds import keep_all, kept
from tests.transfer_queue.journal.test_compaction import FOLDS, fill, finish
from transfer_queue.journal import Compactor, Journal
from transfer_queue.journal.compact import compact
from transfer_queue.journal.folder import Folder

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from transfer_queue.journal import compact, folder

left = int(sys.argv[3])
def fatal(call):
    def before_and_behind(*arguments, **more):
        global left
        for when in range(2):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            result = call(*arguments, **more) if when == 0 else result
        return result
    return before_and_behind

for name in ("open", "fsync", "rename", "unlink", "pwrite", "ftruncate"):
    setattr(os, name, fatal(getattr(os, name)))
from tests.transfer_queue.journal.folds import keep_all
compact.compact(folder.Folder(Path(sys.argv[1])), int(sys.argv[2]), keep_all)
"""


def test_killed_before_and_behind_every_call_that_changes_the_folder(tmp_path: Path) -> None:
    """Among them: between the rename and the removals, and between two removals. An older snapshot is there as well."""
    left, code = 0, -9
    while code == -9:
        folder = tmp_path / str(left)
        journal, _ = Journal.open(folder)
        with journal:
            written = fill(journal, range(10))
            compact(Folder(folder), journal.seal(), keep_all)
            for begin in (10, 20):
                written += fill(journal, range(begin, begin + 10))
                upto = journal.seal()
            written += fill(journal, range(30, 35))
        command = [sys.executable, "-c", KILLED_AT, str(folder), str(upto), str(left)]
        code = subprocess.run(command, check=False).returncode
        assert everything(folder) == (written, [])
        assert not list(folder.glob("*.tmp"))
        assert not list(folder.glob("*.damaged"))
        left += 1
    assert code == 0
    assert left > 20


def test_killed_at_random_moments_nothing_is_lost(folder: Path) -> None:
    chance = random.Random(1)
    written: list[bytes] = []
    for _ in range(12):
        journal, recovered = Journal.open(folder)
        with journal, Compactor(journal, f"{FOLDS}:keep_all") as compactor:
            assert recovered.warnings == []
            assert kept(recovered.snapshot) + list(recovered.records) == written
            written += fill(journal, range(len(written), len(written) + 2000))
            compactor.begin(journal.seal())
            assert compactor.pid is not None
            time.sleep(chance.random() * 0.25)
            os.kill(compactor.pid, 9)
            outcome = finish(compactor)
            assert outcome.ok or "killed by signal 9" in outcome.error
            written += fill(journal, range(len(written), len(written) + 10))

    assert everything(folder) == (written, [])


PARENT = f"""
import os, sys, time
from pathlib import Path
from transfer_queue.journal import Compactor, Journal
journal, _ = Journal.open(Path(sys.argv[1]))
for number in range(100_000):
    journal.append(b"%d" % number)
compactor = Compactor(journal, "{FOLDS}:keep_all_slowly")
compactor.begin(journal.seal())
child = os.fork() if sys.argv[2] == "forked" else 0
if sys.argv[2] == "forked" and child == 0:
    os.read(0, 1)  # holds the pipe to the compaction open
    os._exit(0)
print(compactor.pid, flush=True)
time.sleep(0.3)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("forked", ["forked", "alone"])
def test_a_compaction_dies_with_the_controller_and_the_next_one_opens_at_once(folder: Path, forked: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PARENT, str(folder), forked]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait(20)
        found, warnings = everything(folder)  # waits for the orphan's lock
        for _ in range(500):
            if not running(pid):
                break
            time.sleep(0.01)
        assert not running(pid)
        parent.communicate("x")

    assert (found, warnings) == ([b"%d" % number for number in range(100_000)], [])
    assert not list(folder.glob("snap*"))


def running(pid: int) -> bool:
    """Whether the process does anything any more: nobody here collects an orphan that ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
