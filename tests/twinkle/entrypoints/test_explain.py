"""What is said of settings that cannot be composed."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from twinkle.config import TrainConfig
from twinkle.entrypoints.explain import EXPERIMENT, explain
from twinkle.entrypoints.shell import open_schema
from twinkle.queue_config import QueueProgramConfig

PROGRAMS = {"config": ("train_schema", TrainConfig), "twinkle_queue": ("queue_program_schema", QueueProgramConfig)}


def said(override: str, program: str = "config") -> str:
    name, schema = PROGRAMS[program]
    ConfigStore.instance().store(name=name, node=open_schema(schema))
    with initialize_config_module("hydra_conf", version_base="1.3"), pytest.raises(HydraException) as caught:
        compose(program, [override])
    return explain(caught.value, schema, groups=[EXPERIMENT] if program == "config" else [])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("quickstart", "'quickstart' cannot be read: write key=value; did you mean experiment=quickstart?"),
        ("even_digit", "'even_digit' cannot be read: write key=value; did you mean experiment=even_digits?"),
        ("loop.steps", "'loop.steps' cannot be read: write key=value; did you mean loop.steps=...?"),
        ("50", "'50' cannot be read: write key=value, and quote what the shell would eat."),
        ("loop.steps=fifty", "loop.steps='fifty': give a whole number."),
        ("loop.steps=1.5", "loop.steps='1.5': give a whole number."),
        ("optim.lr=x", "optim.lr='x': give a number."),
        ("model.lora.enabled=maybe", "model.lora.enabled='maybe': give true or false."),
        ("metrics.port=null", "metrics.port='null': give a whole number."),
        ("loop.logp_tolerance=small", "loop.logp_tolerance='small': give a number or null."),
        ("queue.task_samplers=3", "queue.task_samplers='3': give names with values, such as {name: value}."),
    ],
)  # fmt: skip
def test_one_sentence_says_what_to_write(override: str, sentence: str) -> None:
    assert said(override).removeprefix("The override ") == sentence


def test_two_settings_that_are_about_as_near_are_both_named() -> None:
    sentence = said("queue.global_batch=64", "twinkle_queue")

    assert sentence.endswith("did you mean queue.num_global_batch or queue.global_batch_size?")


def test_a_program_without_experiments_names_none() -> None:
    assert "experiment" not in said("quickstart", "twinkle_queue")
