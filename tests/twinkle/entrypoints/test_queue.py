"""``twinkle-queue`` as a person or a supervisor runs it."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import pytest

from tests.twinkle.entrypoints.cli import MARK, Running
from transfer_queue import TransferQueueClient
from transfer_queue.info_file import read_info
from transfer_queue.options import Options
from twinkle.queue_config import AloneConfig

COMMAND = [sys.executable, "-m", "twinkle.entrypoints.queue"]
SIZES = ["queue.global_batch_size=4", "queue.num_n_samples=2", "queue.tasks=[train]", "queue.task_samplers.train=grpo"]


class Queue:
    """Starts ``twinkle-queue`` in a folder."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self._stack = folder, stack

    def start(self, *overrides: str) -> Running:
        temporary = Path(f"/tmp/tw-{uuid.uuid4().hex[:8]}")
        temporary.mkdir()
        self._stack.callback(temporary.rmdir)
        mark = uuid.uuid4().hex
        paths = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "TMPDIR": str(temporary), MARK: mark, "PYTHONPATH": paths}
        process = subprocess.Popen(
            [*COMMAND, *overrides], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return Running(process, mark, temporary)

    def running(self, *overrides: str) -> Running:
        """Started, and it has said that it runs."""
        queue = self.start(*SIZES, *overrides)
        assert queue.process.stdout is not None
        while line := queue.process.stdout.readline():
            if "twinkle why --queue" in line:
                return queue
        raise AssertionError(queue.wait())


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with ExitStack() as stack:
        yield Queue(tmp_path, stack)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_clients_attach_by_the_file_and_a_signal_ends_all(queue: Queue, signum: signal.Signals, code: int) -> None:
    port = free_port()
    running, file = queue.running(f"metrics.port={port}"), queue.folder / "queue.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with TransferQueueClient("worker", read_info(file)) as client:
        client.put({"x": ["a", "b"]}, global_step=0)
        assert len(client.get_meta(["x"], 2, 0, "train")) == 2
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=5) as reply:
        assert json.load(reply)["queue"]["task"] == "train"
    running.send(signum)
    outcome = running.wait()

    assert (outcome.code, outcome.err) == (code, "")
    assert (outcome.left_processes, outcome.left_files, list(queue.folder.iterdir())) == ([], [], [])


def test_a_controller_that_dies_ends_the_program(queue: Queue) -> None:
    running = queue.running()
    os.kill(read_info(queue.folder / "queue.json")["pid"], signal.SIGKILL)
    outcome = running.wait()

    assert outcome.code == 1
    assert "ended with code -9, and its rows with it" in outcome.err
    assert (outcome.left_processes, outcome.left_files, list(queue.folder.iterdir())) == ([], [], [])


def test_a_queue_with_a_journal_survives_its_process(queue: Queue) -> None:
    running = queue.running("queue.journal_dir=journal", "queue.capacity_bytes=1000000", "queue.storage=memory")
    info = read_info(queue.folder / "queue.json")
    with TransferQueueClient("worker", info) as client:
        client.put({"x": ["a", "b"]}, global_step=0)
        os.kill(info["pid"], signal.SIGKILL)
        stats = client.stats()
        assert (stats.rows_put_total, stats.capacity_bytes) == (2, 1_000_000)
    running.send(signal.SIGTERM)
    outcome = running.wait()

    assert outcome.code == 143
    assert (outcome.left_processes, outcome.left_files) == ([], [])
    assert [each.name for each in queue.folder.iterdir()] == ["journal"]


def test_every_argument_of_a_controller_is_a_setting() -> None:
    settings = {each.name for each in fields(AloneConfig)}

    assert settings == {*Options.__annotations__, "info_file"}
    assert AloneConfig().arguments().keys() == Options.__annotations__.keys()


def test_a_second_queue_takes_no_ones_file_but_a_dead_ones(queue: Queue) -> None:
    (queue.folder / "queue.json").write_text(json.dumps({"endpoint": "ipc:///tmp/gone/queue", "pid": 1}))
    first = queue.running()
    named = read_info(queue.folder / "queue.json")
    second = queue.start(*SIZES).wait()

    assert (second.code, "names a queue that is running: choose another file" in second.err) == (2, True)
    assert read_info(queue.folder / "queue.json") == named
    first.send(signal.SIGTERM)
    assert first.wait().code == 143


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("queue.globl_batch_size=4", "did you mean queue.global_batch_size?"),
        ("queue.global_batch_size=0", "global_batch_size must be at least 1, not 0"),
        ("queue.global_batch_size=x", "queue.global_batch_size"),
        ("queue.storage=ram", "storage='ram' is no data plane"),
        ("queue.capacity_bytes=0", "capacity_bytes must be a whole number of bytes of at least 1, not 0"),
        ("queue.sampler=gpro", "queue.sampler='gpro' is no sampler: choose one of sequential, grpo"),
        ("queue.sampler=nowhere:Class", "cannot be imported: ModuleNotFoundError"),
        ("queue.task_samplers.train=json:JSONDecoder", "is no subclass of transfer_queue.BaseSampler"),
        ("queue.sampler=transfer_queue:DPSampler", "each rank registers its own"),
        ("queue.info_file=/no/such/folder/q.json", "lies in no folder"),
        ("metrics.port=99999", "metrics.port=99999 is no port"),
        ("+queue.jornal=x", "There is no setting 'queue.jornal'"),
        ("queue=nothing", "queue=nothing does not exist; queue has: alone"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(queue: Queue, override: str, sentence: str) -> None:
    outcome = queue.start(override).wait()

    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert sentence in outcome.err
    assert (outcome.left_processes, outcome.left_files, list(queue.folder.iterdir())) == ([], [], [])


def test_a_port_in_use_is_bad_input(queue: Queue) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = queue.start(f"metrics.port={taken.getsockname()[1]}").wait()

    assert (outcome.code, "is in use: choose another, or 0 to switch the endpoint off" in outcome.err) == (2, True)
    assert (outcome.left_processes, outcome.left_files, list(queue.folder.iterdir())) == ([], [], [])


def test_the_configuration_is_shown(queue: Queue) -> None:
    outcome = queue.start("--cfg", "job").wait()

    assert (outcome.code, "global_batch_size: 64" in outcome.out) == (0, True)
    assert list(queue.folder.iterdir()) == []
