"""docs/training_on_ray.md: every command makes a configuration that can run."""

import re
import shlex

import pytest

from tests.documents.guide import DOCS
from tests.runs import configured
from twinkle.config import TrainConfig

TEXT = (DOCS / "training_on_ray.md").read_text()
COMMANDS = [fence.replace("\\\n", " ") for fence in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_makes_a_configuration_for_ray(command: str) -> None:
    program, *overrides = shlex.split(command)
    config, _ = configured(*overrides)

    assert program == "twinkle-train"
    assert [group.name for group in config.device_groups()] == ["trainer", "sampler", "reward"]


def test_the_page_names_settings_that_there_are() -> None:
    config = TrainConfig()
    parts = {"mesh": config.mesh, "queue": config.queue, "loop": config.loop, "infra": config.infra}

    named = re.findall(r"`(mesh|queue|loop|infra)\.(\w+)`", TEXT)
    assert len(named) >= 8
    assert [name for part, name in named if not hasattr(parts[part], name)] == []
