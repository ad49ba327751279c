"""docs/training_on_ray.md: every command makes a configuration that can run."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore

from tests.documents.guide import DOCS
from tests.runs import configured
from twinkle.attach_config import SamplerProgramConfig
from twinkle.config import TrainConfig
from twinkle.entrypoints.shell import open_schema, typed
from twinkle.entrypoints.stack_file import Here, expanded
from twinkle.queue_config import QueueProgramConfig

TEXT = (DOCS / "training_on_ray.md").read_text()
FENCES = [fence.replace("\\\n", " ") for fence in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)]
COMMANDS = [line.removeprefix("ray job submit -- ") for fence in FENCES for line in fence.strip().splitlines()]
HERE = Here(cpus=2, gpus=0, has_ray=True)


@pytest.mark.parametrize("command", [each for each in COMMANDS if "stack=" not in each])
def test_a_command_makes_a_configuration_that_can_run(command: str) -> None:
    program, *overrides = shlex.split(command)
    if program == "twinkle-sampler":
        attached(*overrides).validate()
        return
    config, _ = configured(*overrides)
    groups = ["trainer", *([] if config.sampler.attached else ["sampler"])]
    groups += ["reward"] if config.infra.mode == "ray" else []

    assert program == "twinkle-train"
    assert [group.name for group in config.device_groups()] == groups


def attached(*overrides: str) -> SamplerProgramConfig:
    """The typed configuration of twinkle-sampler."""
    ConfigStore.instance().store(name="sampler_program_schema", node=open_schema(SamplerProgramConfig))
    with initialize_config_module("hydra_conf", version_base="1.3"):
        return typed(compose("twinkle_sampler", overrides=list(overrides)), SamplerProgramConfig)


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
    programs = (config, SamplerProgramConfig(), QueueProgramConfig())

    named = re.findall(r"`(mesh|queue|loop|infra|sampler|run)\.(?!json)(\w+)[`=]", TEXT)
    assert len(named) >= 20
    known = [any(hasattr(getattr(each, part, None), name) for each in programs) for part, name in named]
    assert [name for name, found in zip(named, known, strict=True) if not found] == []
