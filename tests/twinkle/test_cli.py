"""``twinkle`` as a person runs it: processes, terminals, and queues that come and go."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from transfer_queue import BatchMeta, NotReadyError, TransferQueueClient, TransferQueueController
from transfer_queue.http import Endpoint
from transfer_queue.info_file import published
from transfer_queue.ledger.shape import first_index
from transfer_queue.pages import Pages
from transfer_queue.peeking import Peeked, Row
from transfer_queue.reports import Stats
from twinkle.tables import peek_table, stats_table

TWINKLE = [sys.executable, "-m", "twinkle.cli"]


@pytest.fixture
def controller() -> Iterator[TransferQueueController]:
    with TransferQueueController.start(global_batch_size=4, tasks=["rollout", "train"]) as running:
        yield running


@pytest.fixture
def client(controller: TransferQueueController) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("worker", controller.get_info()) as one:
        yield one


@pytest.fixture
def folder(controller: TransferQueueController, tmp_path: Path) -> Iterator[Path]:
    """A folder in which the queue is named, as in a run's."""
    with published(tmp_path / "queue.json", controller.get_info()):
        yield tmp_path


def twinkle(*arguments: str, cwd: Path | None = None, columns: int = 100) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(
        [*TWINKLE, *arguments], cwd=cwd, env=environment, text=True, capture_output=True, timeout=60, check=False
    )


def half_ready(client: TransferQueueClient) -> BatchMeta:
    """Four rows of which three have both fields, a task that asked for all, and a lease on two."""
    rows = client.put({"prompt": ["12+3=\x1b[31m", "b", "c", "d"]}, global_step=0)
    client.put({"reward": [1.0] * 3}, metadata=BatchMeta(rows.global_indexes[:3], [], [0] * 3, [0] * 3))
    with pytest.raises(NotReadyError):
        client.get_meta(["prompt", "reward"], 4, 0, "train", timeout_s=0.01)
    return client.get_meta(["prompt"], 2, 0, "rollout", lease_s=60)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_why_says_how_many_and_which_and_ends_with_3_until_ready(client: TransferQueueClient, folder: Path) -> None:
    half_ready(client)
    seen = twinkle("why", "--run", str(folder))

    assert (seen.returncode, seen.stderr) == (3, "")
    assert "train (step 0) 4 3 1 without field 'reward' row 3" in words(seen.stdout)
    assert re.search(r"2 leased by 'worker' for \d s \(lease 1\) rows 0, 1", words(seen.stdout))
    assert twinkle("why", "train", "--queue", str(folder / "queue.json")).returncode == 3
    client.put({"reward": [1.0]}, metadata=BatchMeta([3], [], [0], [0]))
    ready = twinkle("why", "train", "--run", str(folder))
    assert ready.returncode == 0
    assert "train (step 0) 4 4" in words(ready.stdout)
    assert "rollout" not in ready.stdout


def test_why_over_http(controller: TransferQueueController, client: TransferQueueClient) -> None:
    half_ready(client)
    with Pages(controller.get_info()) as pages, Endpoint("127.0.0.1", 0, pages) as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}"
        seen = twinkle("why", "train", "--url", url)
        assert twinkle("why", "--url", f"{url}/elsewhere").returncode == 2
        controller.stop()
        gone = twinkle("why", "--url", url)
    refused = twinkle("why", "--url", url)

    assert (seen.returncode, "1 without field 'reward' row 3" in words(seen.stdout)) == (3, True)
    for end in (gone, refused):
        assert (end.returncode, end.stdout, end.stderr.count("\n")) == (1, "", 1)
    assert "cannot be reached" in refused.stderr


def test_runs_latest_is_looked_at_by_default(client: TransferQueueClient, folder: Path, tmp_path: Path) -> None:
    half_ready(client)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").symlink_to(folder)

    assert twinkle("why", cwd=tmp_path).returncode == 3


def test_peek_shows_rows_their_states_and_harmless_previews(client: TransferQueueClient, folder: Path) -> None:
    half_ready(client)
    seen = twinkle("queue", "peek", "--run", str(folder), "--limit", "2")

    assert (seen.returncode, seen.stderr) == (0, "")
    assert "0 0 0 rollout: leased by 'worker' prompt: 12+3=\\x1b[31m" in words(seen.stdout)
    assert "train: ready" in seen.stdout
    assert "2 of 4 rows" in seen.stdout
    assert "\x1b" not in seen.stdout
    rest = twinkle("queue", "peek", "--run", str(folder), "--fields", "prompt")
    assert "reward is missing" in rest.stdout
    assert "There are no rows." in twinkle("queue", "peek", "--run", str(folder), "--step", "9").stdout


def test_peek_counts_rows_and_groups_from_the_beginning_of_their_step() -> None:
    later = first_index(184)
    tasks = {"rollout": "consumed", "reward": "free", "train": "free"}
    rows = [
        Row(later + 5, 184, later + 2, ("seed",), tasks, {"seed": "576584209092435833"}),
        Row(later + 6, 184, first_index(3), ("seed",), tasks, {"seed": "17"}),  # a group that was given this number
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(peek_table(Peeked(rows, 2)))

    assert isinstance(console.file, io.StringIO)
    text = words(console.file.getvalue())
    assert "5 184 2 rollout: consumed seed: 576584… reward, train: free" in text
    assert f"6 184 {first_index(3)} rollout: consumed seed: 17 reward, train: free" in text


def test_stats_in_a_pipe_keep_a_sentence_on_its_line(client: TransferQueueClient, folder: Path) -> None:
    half_ready(client)
    seen = twinkle("queue", "stats", "--run", str(folder), columns=40)

    assert re.search(r"^1 leases, the oldest \d+ s old; .*; rows last moved \d+ s ago$", seen.stdout, re.MULTILINE)


def test_stats_shows_the_counts(client: TransferQueueClient, folder: Path) -> None:
    half_ready(client)
    seen = twinkle("queue", "stats", "--run", str(folder))

    assert seen.returncode == 0
    assert "rollout 2 2 2 0 0 0 0" in words(seen.stdout)
    assert "1 of 1 partitions alive (steps 0 to 0)" in seen.stdout
    assert "wait for" not in seen.stdout


def test_stats_names_who_holds_memory_back() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(stats_table(Stats({}, [], 0, 0, 0, 0, held_bytes=4096, held_by="viewer", held_s=12.3)))

    assert isinstance(console.file, io.StringIO)
    assert "4,096 freed bytes wait for 'viewer', a reader for 12 s" in console.file.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_tables_keep_to_the_width_of_the_terminal(client: TransferQueueClient, folder: Path, columns: int) -> None:
    half_ready(client)
    for command in (["why"], ["queue", "peek"], ["queue", "stats"]):
        text = in_terminal([*command, "--run", str(folder)], columns)
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()

        assert "train" in text
        assert max(map(len, lines)) <= columns, lines


def in_terminal(arguments: Sequence[str], columns: int) -> str:
    """What a command writes to a terminal of that width."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (50, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [*TWINKLE, *arguments], stdin=child, stdout=child, stderr=child, env={**environment, "TERM": "xterm-256color"}
    )
    os.close(child)
    text, deadline = b"", time.monotonic() + 60
    with suppress(OSError):  # Linux says so when the other end of a terminal is closed
        while time.monotonic() < deadline and select.select([parent], [], [], 30)[0]:
            more = os.read(parent, 65536)
            if not more:
                break
            text += more
    os.close(parent)
    process.wait(10)
    return text.decode()


def test_watch_ends_with_a_sentence_when_the_controller_is_killed(
    controller: TransferQueueController, client: TransferQueueClient, folder: Path
) -> None:
    half_ready(client)
    with watching(folder) as process:
        assert process.stdout is not None
        assert "Task" in process.stdout.readline()
        os.kill(controller.pid, signal.SIGKILL)
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()

    assert process.returncode == 1
    assert "without field 'reward'" in words(out)
    assert err.startswith("twinkle: the controller at ")
    assert err.count("\n") == 1


def test_watch_ends_with_130_on_ctrl_c(client: TransferQueueClient, folder: Path) -> None:
    half_ready(client)
    with watching(folder) as process:
        assert process.stdout is not None
        assert "Task" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (130, "")


def watching(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*TWINKLE, "why", "--watch", "--every", "0.1", "--run", str(folder)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["wy"], 2, "'wy' is no command; there are why, queue, "),
        (["quee"], 2, "; did you mean queue?"),
        (["queue", "pek"], 2, "did you mean peek?"),
        ([], 2, "twinkle: name a command: why, queue, "),
        (["queue"], 2, "twinkle queue: name a command: peek, stats"),
        (["why", "--run", "nowhere"], 2, "nowhere is no run folder"),
        (["why", "--run", "."], 1, ". has no queue.json: its run has ended, or has not begun"),
        (["why"], 2, "runs/latest is no run folder"),
        (["why", "--queue", "queue.json"], 1, "queue.json does not exist: no queue is running there"),
        (["why", "--queue", "torn.json"], 2, "torn.json is no JSON"),
        (["why", "--url", "example"], 2, "is no address of an endpoint"),
        (["why", "--url", "http://127.0.0.1:99999"], 2, "cannot be read"),
        (["why", "--url", "http://127.0.0.1:1"], 1, "cannot be reached"),
        (["why", "--run", ".", "--url", "http://x"], 2, "not allowed with"),
        (["why", "--watch", "--every", "0"], 2, "0 is out of range: 0.05 to 3600 seconds"),
        (["queue", "peek", "--lim", "3"], 2, "unrecognized arguments: --lim"),
        (["queue", "peek", "--step", "x"], 2, "invalid int value"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    (tmp_path / "torn.json").write_text("{")
    seen = twinkle(*arguments, cwd=tmp_path)

    assert (seen.returncode, seen.stdout) == (code, "")
    assert sentence in seen.stderr
    assert seen.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["torn.json"]


def test_a_limit_that_the_queue_refuses_is_bad_input(folder: Path) -> None:
    seen = twinkle("queue", "peek", "--run", str(folder), "--limit", "1001")

    assert (seen.returncode, "limit=1001 is out of range: 1 to 1000" in seen.stderr) == (2, True)


def test_version_and_help_load_nothing_heavy() -> None:
    assert twinkle("--version").stdout.startswith("twinkle 0.")
    assert "why a task gets no rows" in twinkle("--help").stdout
    code = "import sys, twinkle.cli; print([n for n in ('rich', 'zmq', 'numpy', 'torch', 'hydra') if n in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert seen.stdout.strip() == "[]"
