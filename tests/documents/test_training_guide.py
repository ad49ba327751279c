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
from twinkle.queue_config import QueueProgramConfig

TEXT = (DOCS / "training_on_ray.md").read_text()
FENCES = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [command for fence in FENCES for command in fence.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
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


def test_the_page_names_settings_that_there_are() -> None:
    config = TrainConfig()
    programs = (config, SamplerProgramConfig(), QueueProgramConfig())

    named = re.findall(r"`(mesh|queue|loop|infra|sampler)\.(?!json)(\w+)", TEXT)
    assert len(named) >= 20
    known = [any(hasattr(getattr(each, part, None), name) for each in programs) for part, name in named]
    assert [name for name, found in zip(named, known, strict=True) if not found] == []
