"""docs/training_on_ray.md: every command makes a configuration that can run."""

import re
import shlex

import pytest

from tests.documents.guide import DOCS
from tests.runs import configured
from twinkle.config import TrainConfig
from twinkle.entrypoints.stack_file import Here, expanded

TEXT = (DOCS / "training_on_ray.md").read_text()
FENCES = [fence.replace("\\\n", " ") for fence in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)]
COMMANDS = [line.removeprefix("ray job submit -- ") for fence in FENCES for line in fence.strip().splitlines()]
HERE = Here(cpus=2, gpus=0, has_ray=True)


@pytest.mark.parametrize("command", [each for each in COMMANDS if "stack=" not in each])
def test_a_command_makes_a_configuration_for_ray(command: str) -> None:
    program, *overrides = shlex.split(command)
    config, _ = configured(*overrides)

    assert program == "twinkle-train"
    assert [group.name for group in config.device_groups()] == ["trainer", "sampler", "reward"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if "stack=examples" in each])
def test_a_command_runs_a_stack_that_there_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    program, *arguments = shlex.split(command, comments=True)
    found = expanded(arguments, HERE)

    assert program == "twinkle-train"
    assert found is not None
    configured(*found.arguments)


def test_the_page_names_settings_that_there_are() -> None:
    config = TrainConfig()
    parts = {name: getattr(config, name) for name in ("mesh", "queue", "loop", "infra", "run")}

    named = re.findall(r"`(mesh|queue|loop|infra|run)\.(\w+)[`=]", TEXT)
    assert len(named) >= 8
    assert [name for part, name in named if not hasattr(parts[part], name)] == []
