"""A disk that is full is an error of that burst, not the end of the journal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transfer_queue.journal.conftest import everything

PROGRAM = """
import os, resource, sys
from pathlib import Path
from transfer_queue.errors import JournalError
from transfer_queue.journal import Journal

folder, filler = Path(sys.argv[1]) / "journal", Path(sys.argv[1]) / "filler"
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def fill():
    if sys.argv[2] == "limit":
        return resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

def make_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)) if sys.argv[2] == "limit" else filler.unlink()

journal, _ = Journal.open(folder, segment_bytes=1 << 30)
journal.append(b"before" * 1000)
journal.commit()
size = lambda: (folder / "segment-0000000001.log").stat().st_size
before = size()
fill()
for attempt in range(3):
    journal.append(b"small")
    journal.append(b"x" * 60_000, b"y" * 60_000)
    try:
        journal.commit()
    except JournalError as error:
        print(error)
        assert size() == before, (size(), before)
make_room()
journal.append(b"after" * 10_000)
journal.commit()
journal.seal()
if sys.argv[2] == "mount":
    fill()
    journal.append(b"z" * 3000)
    try:
        journal.seal()
    except JournalError as error:
        print(error)
    make_room()
journal.close()
journal, recovered = Journal.open(folder)
assert recovered.warnings == [], recovered.warnings
print([(bytes(record[:1]), len(record)) for record in recovered.records])
journal.close()
"""
REFUSED = "120,021 bytes could not be written ({reason}): make room on that disk; none of this burst's records counts"


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    lines = subprocess.check_output([sys.executable, "-c", PROGRAM, str(tmp_path), "limit"], text=True).splitlines()
    first = tmp_path / "journal" / "segment-0000000001.log"

    assert lines[:-1] == [f"{first}: {REFUSED.format(reason='File too large')}"] * 3
    assert lines[-1] == str([(b"b", 6000), (b"a", 50_000)])
    assert everything(tmp_path / "journal")[0] == [b"before" * 1000, b"after" * 10_000]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts a small disk, which takes root"
)
def test_a_small_disk_that_fills_up(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that nothing stays mounted however the test ends."""
    script = 'mount -t tmpfs -o size=160k,mode=700 tmpfs "$2" || exit 99; exec "$0" -c "$1" "$2" mount'
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, PROGRAM, str(tmp_path)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode in (1, 99) and not run.stdout:
        pytest.skip("this root may not mount")
    lines = run.stdout.splitlines()

    assert run.returncode == 0
    assert len(lines) >= 4
    assert all(REFUSED.format(reason="No space left on device") in line for line in lines[:3])
    assert all("No space left on device" in line for line in lines[3:-1])
    assert lines[-1].startswith(str([(b"b", 6000), (b"a", 50_000)])[:-1])
