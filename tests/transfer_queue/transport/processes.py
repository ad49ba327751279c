"""Controllers for tests in processes of their own, which can be killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def controller(address: str, limit: str = "", *keys: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and its endpoint; ended with the block, if it has not ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.transfer_queue.transport.controller_for_tests", address, limit, *keys],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)
