"""--help and --version of the programs."""

import subprocess
import sys
from pathlib import Path

import pytest

from twinkle import __version__

PROGRAMS = ("train", "queue", "sampler")


def printed(program: str, option: str) -> str:
    command = [str(Path(sys.executable).with_name(f"twinkle-{program}")), option]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_ours(program: str) -> None:
    assert printed(program, "--version") == f"twinkle-{program} {__version__}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_only_a_programs_own_groups_are_listed(program: str) -> None:
    text = printed(program, "--help")

    assert text.startswith(f"twinkle-{program}: ")
    assert ("experiment: even_digits" in text) == (program == "train")
    assert {"train": "prompts_per_step:", "queue": "num_n_samples:", "sampler": "idle_s:"}[program] in text
