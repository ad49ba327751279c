"""A writer that is killed in the middle of a burst: what it committed is there, in order, and nothing torn."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transfer_queue.journal.conftest import everything

WRITER = """
import os, random, sys
from pathlib import Path
from transfer_queue.journal import Journal

def record(number):
    chance = random.Random(number)
    return number.to_bytes(8, "big") + chance.randbytes(chance.choice((0, 10, 100, 3000, 70_000)))

def write(folder, number):
    journal, _ = Journal.open(folder, segment_bytes=300_000, fsync_ms=1)
    while True:
        for _ in range(number % 5 + 1):
            body = record(number)
            journal.append(body[:50], body[50:])
            number += 1
        journal.commit()
        journal.sync()
        os.write(1, number.to_bytes(8, "big"))

if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
"""


def record(number: int) -> bytes:
    chance = random.Random(number)
    return number.to_bytes(8, "big") + chance.randbytes(chance.choice((0, 10, 100, 3000, 70_000)))


@pytest.mark.parametrize("seed", range(3))
def test_every_committed_record_survives_sigkill(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    kept = 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(kept)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            said = writer.stdout.read(8)
            time.sleep(chance.random() * 0.15)
            writer.kill()
            said += writer.stdout.read()
        committed = int.from_bytes(said[: len(said) // 8 * 8][-8:], "big")
        found, warnings = everything(folder)

        assert len(found) >= committed > kept
        assert found == [record(number) for number in range(len(found))]
        assert all("the last write did not reach the disk whole" in warning for warning in warnings)
        kept = len(found)
