"""What happens when this process has no file descriptors left, whoever took them."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transfer_queue import wire
from transfer_queue.connection import Connection
from transfer_queue.transport.descriptors import Descriptors, raise_limit

HOG = """
import os, resource, signal, sys
from tests.transfer_queue.transport.serving import Answering
from transfer_queue.server import Server
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.unix import UnixListener

class Counting(UnixListener):
    tries = 0
    def _accept(self, mask):
        self.tries += 1
        super()._accept(mask)

listener = Counting(sys.argv[1], Descriptors())
server = Server(lambda _post: Answering(), [listener])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
if sys.argv[2] == "nothing is spared":
    listener._close_spare()
hogged = []
try:
    while True:
        hogged.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass

def release():
    while hogged:
        os.close(hogged.pop())
    print(listener.tries, flush=True)

signal.signal(signal.SIGUSR1, lambda *_: server.post(release))
print("full", flush=True)
server.run(sys.stdin.fileno())
"""


def ask(path: str) -> wire.ReplyBody:
    connection = Connection({"endpoint": f"unix://{path}"})
    try:
        return connection.call("me", wire.GetStats(), [], 20, lambda: "the test waited")[0]
    finally:
        connection.close()


@pytest.mark.parametrize("spare", ["one is spared", "nothing is spared"])
def test_without_a_descriptor_newcomers_are_refused_or_wait_and_nothing_spins(tmp_path: Path, spare: str) -> None:
    path = str(tmp_path / "queue")
    process = subprocess.Popen(
        [sys.executable, "-c", HOG, path, spare], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "full\n"
    try:
        if spare == "one is spared":
            refusals = [ask(path) for _ in range(3)]
            assert all(isinstance(each, wire.Failure) and "ulimit -n" in each.message for each in refusals)
        else:
            waiting = Connection({"endpoint": f"unix://{path}"})
            with pytest.raises(TimeoutError):
                waiting.call("me", wire.GetStats(), [], 0.5, lambda: "the test waited")
        process.send_signal(signal.SIGUSR1)
        assert int(process.stdout.readline()) < 30
        deadline = time.monotonic() + 20
        while isinstance(ask(path), wire.Failure):
            assert time.monotonic() < deadline
    finally:
        process.stdin.close()
        process.stdout.close()

    assert process.wait(20) == 0


def test_the_limit_is_raised_and_a_part_of_it_reserved() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), hard))
        assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65536)
        descriptors = Descriptors()
        assert 0 < descriptors.most <= descriptors.limit - descriptors.reserve
        descriptors.used = descriptors.most
        assert descriptors.full()
        assert f"its limit of open files is {descriptors.limit} (ulimit -n)" in descriptors.refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
