"""What `make run` hands to twinkle-train; nothing is run."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def settings(*words: str) -> list[str]:
    command = ["make", "--no-print-directory", "-n", "run", *words]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    line = next(line for line in printed.splitlines() if "twinkle-train" in line)
    return sorted(shlex.split(line)[1:])


@pytest.mark.parametrize(
    ("words", "handed"),
    [
        ([], ["experiment=quickstart"]),
        (["loop.steps=50", "optim.lr=1e-3"], ["experiment=quickstart", "loop.steps=50", "optim.lr=1e-3"]),
        (["experiment=even_digits", "run.seed=3"], ["experiment=even_digits", "run.seed=3"]),
        (["sampler=vllm", "OMP_NUM_THREADS=2"], ["experiment=quickstart", "sampler=vllm"]),
        (['sampler.stop=["a b", "c=d"]'], ["experiment=quickstart", 'sampler.stop=["a b", "c=d"]']),
        (["run.name=it's"], ["experiment=quickstart", "run.name=it's"]),
    ],
)
def test_settings_reach_the_program_as_they_were_typed(words: list[str], handed: list[str]) -> None:
    assert settings(*words) == handed
