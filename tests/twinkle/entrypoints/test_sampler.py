"""``twinkle-sampler`` as a person runs it: beside a run in another process, on Ray, and with a queue of nobody's."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore

from tests.runs import configured, trained
from tests.twinkle.entrypoints.cli import MARK, Running, Trainer
from tests.twinkle.loop.test_on_ray import untimed
from tests.twinkle.loop.test_sync import weights
from transfer_queue import TransferQueueClient, TransferQueueController
from transfer_queue.info_file import published, read_info
from twinkle.attach_config import SamplerProgramConfig
from twinkle.entrypoints.sampler import run_sampler
from twinkle.entrypoints.shell import open_schema
from twinkle.errors import RunError
from twinkle.loop.records import read_rows

COMMAND = [sys.executable, "-m", "twinkle.entrypoints.sampler"]
STEPS = 10
LONG = [f"loop.steps={STEPS}", "loop.checkpoint_every=0", "data.held_out_prompts=12", "metrics.tensorboard=false"]
SHORT = ["loop.steps=3", "loop.checkpoint_every=0", "data.held_out_prompts=4"]
START_S = 100.0
LEASE_S = 20.0
"""Long enough that a step with prompts of the sampler that dies is still there when the next one answers."""


class Samplers:
    """Starts ``twinkle-sampler`` in a folder."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self._stack = folder, stack

    def start(self, *overrides: str) -> Running:
        temporary = Path(f"/tmp/tw-{uuid.uuid4().hex[:8]}")
        temporary.mkdir()
        self._stack.callback(shutil.rmtree, temporary)
        mark = uuid.uuid4().hex
        cache = str(self.folder / "torch")  # torch's own, made at import
        ours = {"TMPDIR": str(temporary), MARK: mark, "TORCHINDUCTOR_CACHE_DIR": cache}
        process = subprocess.Popen(
            [*COMMAND, *overrides], cwd=self.folder, env={**os.environ, **ours}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._stack.callback(reaped, process)
        return Running(process, mark, temporary)

    def serving(self, *overrides: str) -> Running:
        """Started, and it has said that it answers."""
        sampler = self.start(*overrides)
        assert sampler.process.stdout is not None
        while line := sampler.process.stdout.readline():
            if line.startswith("Answering the prompts of"):
                return sampler
        raise AssertionError(sampler.wait())


def reaped(process: "subprocess.Popen[str]") -> None:
    """Kill it, if need be, and read what it said."""
    process.kill()
    if process.stdout is not None and not process.stdout.closed:
        process.communicate()
    process.wait()


@pytest.fixture
def samplers(tmp_path: Path) -> Iterator[Samplers]:
    with ExitStack() as stack:
        yield Samplers(tmp_path, stack)


def until_there(path: Path, running: Running) -> None:
    deadline = time.monotonic() + START_S
    while not path.exists():
        assert running.process.poll() is None, running.process.communicate()
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def has_prompts(sampler: Running, client: TransferQueueClient) -> bool:
    return any(reason.holder == f"sampler-{sampler.process.pid}-0" for reason in client.why("rollout").reasons)


def same(run: Path, local: Path) -> bool:
    """Whether two runs have the same figures, step by step, the same evaluations and the same weights."""
    rows, expected = untimed(run), untimed(local)
    for row in [*rows, *expected]:
        del row["probe_gap"]  # nobody asks an attached sampler for it
    assert rows == expected
    return read_rows(run / "evals.jsonl") == read_rows(local / "evals.jsonl") and weights(run) == weights(local)


@pytest.mark.timeout(300)
def test_two_samplers_share_a_run_and_the_death_of_one_costs_nothing(
    samplers: Samplers, trainer: Trainer, tmp_path: Path
) -> None:
    run = trainer.start(*LONG, "sampler.attached=true", "queue.timeout_s=200", fast=False)
    until_there(tmp_path / "runs" / "latest" / "queue.json", run)
    info = "queue.info=runs/latest/queue.json"
    doomed = samplers.serving(info, f"queue.lease_s={LEASE_S:g}")
    with TransferQueueClient("test", read_info(trainer.latest / "queue.json")) as client:
        deadline = time.monotonic() + START_S
        while doomed.send(signal.SIGSTOP) or not has_prompts(doomed, client):
            doomed.send(signal.SIGCONT)
            assert time.monotonic() < deadline
            time.sleep(0.01)
    other = samplers.serving(info, "queue.lease_s=3")
    doomed.process.kill()

    assert run.wait(200).code == 0
    assert (ended := other.wait()).code == 0, ended
    assert "The queue has ended." in ended.out
    assert (ended.left_processes, ended.left_files) == ([], [])
    assert not (trainer.latest / "weights").exists()
    assert same(trainer.latest, trained(tmp_path / "local", *LONG))


@pytest.mark.timeout(300)
def test_a_run_on_ray_and_a_sampler_on_a_device_group_of_ray(
    ray_cluster: Any, samplers: Samplers, tmp_path: Path
) -> None:
    """Two drivers on one cluster, with queue and weights as several machines have them."""
    info, address = tmp_path / "runs" / "latest" / "queue.json", ray_cluster.get_runtime_context().gcs_address
    waits = (
        f"import pathlib, time\nwhile not pathlib.Path({str(info)!r}).exists(): time.sleep(0.05)\n"
        "from twinkle.entrypoints.sampler import main; main()"
    )
    process = subprocess.Popen(
        [
            sys.executable, "-c", waits, f"queue.info={info}", "infra.mode=ray", "mesh.dp=2", "infra.cpus_per_rank=0",
            f"infra.address={address}",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        run = trained(
            tmp_path / "runs", *SHORT, "infra=ray", "queue.storage=ray", "sampler.attached=true",
            "infra.trainer.cpus_per_rank=0", "mesh.reward_ranks=0", "queue.timeout_s=200",
        )  # fmt: skip
        out, _ = process.communicate(timeout=60)
    finally:
        reaped(process)

    assert process.returncode == 0
    assert "The queue has ended." in out
    assert same(run, trained(tmp_path / "local", *SHORT))


def test_a_run_without_samplers_says_what_it_waits_for(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"waits for samplers to answer the 8 rows of 4 held-out prompts.*twinkle-s"):
        trained(tmp_path, *SHORT, "sampler.attached=true", "queue.timeout_s=0.2")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[TransferQueueClient]:
    """A queue of no run, which twinkle-sampler finds by ``queue.json``, with the settings that it needs beside it."""
    (tmp_path / "config.yaml").write_text(configured("sampler.max_tokens=400", "model.tiny.max_positions=512")[1])
    with (
        TransferQueueController.start(global_batch_size=4, num_n_samples=8, tasks=["rollout", "train"]) as queue,
        published(tmp_path / "queue.json", queue.get_info()),
        TransferQueueClient("test", queue.get_info()) as client,
    ):
        yield client


def put_prompts(client: TransferQueueClient, count: int, prompt: str = "1234") -> None:
    rows = 8 * count
    fields = {"prompt": [prompt] * rows, "sample_id": torch.arange(rows), "seed": torch.arange(rows) // 8}
    client.put(fields, global_step=1)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_the_prompts_back_at_once(
    samplers: Samplers, alone: TransferQueueClient, signum: signal.Signals, code: int
) -> None:
    sampler = samplers.serving("queue.settings=config.yaml", "queue.lease_s=1000")
    put_prompts(alone, 4)
    deadline = time.monotonic() + START_S
    while not alone.stats().leases:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sampler.send(signum)
    ended = sampler.wait()

    assert (ended.code, ended.left_processes, ended.left_files) == (code, [], [])
    stats = alone.stats()
    assert stats.leases == 0
    assert stats.tasks["rollout"].consumed < 32


def test_a_queue_of_no_run_is_served_with_the_models_own_weights_until_it_is_idle(
    samplers: Samplers, alone: TransferQueueClient
) -> None:
    sampler = samplers.serving("queue.settings=config.yaml", "queue.idle_s=2")
    put_prompts(alone, 1, "what the model cannot read: é")
    put_prompts(alone, 1)
    meta, data = alone.get(["response", "version", "fingerprint"], 8, 1, "train", lease_s=60, plain=True)
    ended = sampler.wait()

    assert (len(meta), data["fingerprint"]) == (8, ["base"] * 8)
    assert ended.code == 1
    assert "8 rows were dropped: the prompt 'what the model cannot read: é': the tokenizer has no token" in ended.out
    assert "No prompts for queue.idle_s=2 s (get_meta waited" in ended.err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "belongs to no run that has samplers attach: start one with sampler.attached=true"),
        (["queue.settings=nothing.yaml"], "queue.settings='nothing.yaml' cannot be read"),
        (["queue.info=nothing.json"], "nothing.json does not exist: no queue is running there"),
        (["queue.settings=config.yaml", "mesh.dp=2"], "set infra.mode=ray"),
        (["queue.settings=config.yaml", "sampler.engine=tgi"], "sampler.engine='tgi' is unknown"),
        (["queue.settings=queue.json"], "holds no settings of twinkle-train"),
        (["queue.lease_s=0"], "queue.lease_s=0.0 must be above 0"),
        (["+queue.lease=3"], "There is no setting 'queue.lease'"),
    ],
)
def test_bad_input_is_one_sentence(
    alone: TransferQueueClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ConfigStore.instance().store(name="sampler_program_schema", node=open_schema(SamplerProgramConfig))
    with initialize_config_module("hydra_conf", version_base="1.3"):
        settings = compose("twinkle_sampler", overrides=overrides)

    assert run_sampler(settings) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
