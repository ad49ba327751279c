"""twinkle-train as a subprocess: what a good run prints and leaves."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.twinkle.entrypoints.cli import Outcome, Trainer
from twinkle.loop.records import read_rows

TWINKLE = [sys.executable, "-m", "twinkle.cli"]
FIGURES = {
    "step", "reward_mean", "reward_std", "loss", "grad_norm", "kl", "clip_fraction", "tokens_per_s", "seconds",
    "version", "staleness_max", "logp_diff_max", "queue_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Outcome]:
    trainer = Trainer(tmp_path_factory.mktemp("finished"))
    return trainer, trainer.run("experiment=quickstart", "metrics.tensorboard=true")


def test_it_ends_well_and_leaves_no_process_and_no_file(finished: tuple[Trainer, Outcome]) -> None:
    _, outcome = finished

    assert outcome.code == 0, outcome
    assert (outcome.err, outcome.left_processes, outcome.left_files) == ("", [], [])


def test_it_says_what_it_will_do_and_what_came_of_it(finished: tuple[Trainer, Outcome]) -> None:
    _, outcome = finished
    for word in (
        "parameters",
        "prompts_per_step 8",
        "samples_per_prompt 8",
        "step 4/4",
        "held-out prompts",
        "report.html",
    ):
        assert word in outcome.out


def test_the_run_folder_holds_what_the_readme_lists(finished: tuple[Trainer, Outcome]) -> None:
    trainer, _ = finished
    names = {path.name for path in trainer.latest.iterdir()}

    assert {
        "metrics.jsonl", "reward.png", "report.html", "adapter", "samples.jsonl", "evals.jsonl", "config.yaml",
        "checkpoints", "tensorboard", "result.json",
    } <= names  # fmt: skip


def test_every_step_has_its_figures(finished: tuple[Trainer, Outcome]) -> None:
    rows = read_rows(finished[0].latest / "metrics.jsonl")

    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(set(row) >= FIGURES for row in rows)
    assert all(row["logp_diff_max"] <= 1e-5 and row["staleness_max"] == 0 for row in rows)


def test_the_adapter_loads_in_peft_over_its_base_model(finished: tuple[Trainer, Outcome]) -> None:
    run = finished[0].latest
    base = json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run / "adapter")

    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in model.state_dict().items())


def test_the_report_needs_nothing_from_outside(finished: tuple[Trainer, Outcome]) -> None:
    html = (finished[0].latest / "report.html").read_text()

    assert re.findall(r"""(?:src|href)=["'](?!#)[^"']+""", html) == []
    assert "prompts_per_step: 8" in html


def test_auto_starts_a_new_run_when_the_last_one_is_finished(finished: tuple[Trainer, Outcome]) -> None:
    trainer, _ = finished
    before = trainer.latest
    assert trainer.run("experiment=quickstart", "metrics.tensorboard=true", "run.resume=auto").code == 0

    assert trainer.latest != before


def test_a_finished_run_is_trained_on_with_more_steps(finished: tuple[Trainer, Outcome]) -> None:
    trainer, _ = finished
    run = trainer.latest
    outcome = trainer.run("experiment=quickstart", "metrics.tensorboard=true", f"run.resume={run}", "loop.steps=6")

    assert outcome.code == 0, outcome
    assert "This run was finished after 4 steps; it goes on to 6 (loop.steps=6)." in outcome.out
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_cfg_job_prints_the_configuration_and_runs_nothing(trainer: Trainer) -> None:
    outcome = trainer.run("experiment=even_digits", flags=["--cfg", "job"])

    assert outcome.code == 0
    assert "prompts_per_step: 32" in outcome.out
    assert list(trainer.folder.iterdir()) == []


def test_dry_run_prints_sizes_and_memory_and_runs_nothing(trainer: Trainer) -> None:
    outcome = trainer.run("run.dry_run=true")

    assert outcome.code == 0, outcome
    for word in ("64 rows", "MiB", "samples_per_prompt: 8"):
        assert word in outcome.out
    assert not (trainer.folder / "runs").exists()


def test_multirun_runs_one_after_the_other(trainer: Trainer) -> None:
    outcome = trainer.run("run.seed=0,1", "loop.steps=1", flags=["-m"])

    assert outcome.code == 0, outcome
    configs = [path.read_text() for path in (trainer.folder / "runs").glob("2*/config.yaml")]
    assert sorted(re.search(r"seed: (\d)", text[text.index("run:") :]).group(1) for text in configs) == ["0", "1"]  # type: ignore[union-attr]
    assert "Job 2 of 2: run.seed=1\n" in outcome.out
    table = outcome.out.partition("The sweep:")[2]
    assert re.findall(r"(run.seed=\d) +[01]\.\d{3} -> [01]\.\d{3} +runs/2\S+-quickstart", table) == [
        "run.seed=0",
        "run.seed=1",
    ]
    assert not [path for path in (trainer.folder / "runs").rglob("*") if path.is_dir() and not list(path.iterdir())]


@pytest.mark.parametrize("experiment", ["even_digits", "jsonl"])
def test_the_other_experiments_run(trainer: Trainer, experiment: str) -> None:
    outcome = trainer.run(f"experiment={experiment}", "loop.steps=2")

    assert outcome.code == 0, outcome
    assert len(read_rows(trainer.latest / "metrics.jsonl")) == 2


def test_ranks_that_take_turns_train_as_one(trainer: Trainer, finished: tuple[Trainer, Outcome]) -> None:
    outcome = trainer.run("experiment=quickstart", "mesh.trainer_dp=2")

    assert outcome.code == 0, outcome
    ours, theirs = (read_rows(run / "metrics.jsonl")[:4] for run in (trainer.latest, finished[0].latest))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], abs=1e-6)


def test_metrics_and_readiness_are_served_while_it_runs(trainer: Trainer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = trainer.start("loop.steps=300", f"metrics.port={port}")
    pages: dict[str, str] = {}
    whys: list[int] = []

    def look() -> None:
        deadline = time.monotonic() + 60
        while len(pages) < 3 and time.monotonic() < deadline:
            for page in ("readyz", "metrics", "v1/status"):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=2) as reply:
                        text = reply.read().decode()
                except OSError:
                    time.sleep(0.05)
                    continue
                if page == "readyz" or "twinkle_step 1" in text or '"step":1' in text:
                    pages[page] = text
        whys.append(subprocess.run([*TWINKLE, "why"], cwd=trainer.folder, check=False, timeout=60).returncode)

    thread = threading.Thread(target=look)
    thread.start()
    outcome = running.wait()
    thread.join()

    assert outcome.code == 0, outcome
    assert pages["readyz"] == "ready\n"
    assert re.search(r'transfer_queue_\w+\{.*task="train"', pages["metrics"])
    status = json.loads(pages["v1/status"])
    assert (status["lineage"], status["version"], status["queue"]["required"]) == (0, f"0.{status['step']}", 64)
    assert whys in ([0], [3])  # the queue of the run is found by its folder
    assert not (trainer.latest / "queue.json").exists()
