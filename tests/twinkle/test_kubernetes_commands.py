"""The commands of ``twinkle`` for stacks, as processes."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from twinkle.errors import ConfigError
from twinkle.kubernetes_commands import add_commands

STACK = Path(__file__).parents[1] / "kube" / "base.yaml"


def twinkle(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "twinkle.cli", *arguments]
    return subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=60, check=False)


def test_validate_ends_with_0_or_2() -> None:
    valid = twinkle("validate", str(STACK))
    refused = twinkle("validate", "-", stdin=STACK.read_text("utf-8").replace("role: trainer", "role: trainr"))

    assert (valid.returncode, valid.stdout, valid.stderr) == (0, "1 TrainingStack valid.\n", "")
    assert (refused.returncode, refused.stderr) == (2, "")
    assert 'spec.deviceGroups[1].role: "trainr" is unknown; choose one of: reward, sampler, trainer' in refused.stdout


def test_validate_needs_a_file_and_looks_at_updates() -> None:
    update = twinkle("validate", "-", "--from", str(STACK), stdin=STACK.read_text("utf-8").replace("dp: 2}", "dp: 4}"))

    assert twinkle("validate").returncode == 2
    assert update.returncode == 2
    assert "a mesh or a role changes only while the stack is suspended" in update.stdout


@pytest.mark.parametrize("given", ["0", "-3", "nan", "2.5", "1" * 5000, "86401", ""])
def test_a_deadline_that_is_none_is_refused_before_anything_is_asked(given: str) -> None:
    refused = twinkle("fetch", "s", f"--deadline={given}")

    assert (refused.returncode, refused.stdout) == (2, "")
    said = f"twinkle fetch: argument --deadline: {given!r} is out of range: a whole number of seconds, 1 to 86400\n"
    assert refused.stderr == said


def test_without_the_extra_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ("twinkle_operator.validate", "twinkle_operator.commands")
    for name in [name for name in sys.modules if name.startswith(loaded)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "yaml", None)
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    options = parser.parse_args(["validate", "stack.yaml"])

    with pytest.raises(ConfigError, match=r"twinkle validate needs the package yaml: 'make venv' .*rl\[operator"):
        options.run_command(options)
