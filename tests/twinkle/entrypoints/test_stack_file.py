"""twinkle-train stack=FILE: the resource of a cluster, run here."""

from pathlib import Path

import pytest

from tests.runs import configured
from tests.twinkle.entrypoints.cli import Trainer
from tests.twinkle.entrypoints.test_bad_input import assert_one_sentence
from twinkle.config import TrainConfig
from twinkle.entrypoints.stack_file import Expanded, Here, expanded
from twinkle.errors import ConfigError
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import read_json

EXAMPLES = Path(__file__).parents[3] / "examples"
LAPTOP = Here(cpus=2, gpus=0, has_ray=True)


def made(*arguments: str, here: Here = LAPTOP) -> Expanded:
    found = expanded(arguments, here)
    assert found is not None
    return found


def config(*arguments: str, here: Here = LAPTOP) -> TrainConfig:
    """What Hydra makes of it."""
    return configured(*made(*arguments, here=here).arguments)[0]


def test_without_a_stack_nothing_is_touched() -> None:
    assert expanded(["experiment=quickstart", "loop.steps=3"]) is None


@pytest.mark.parametrize("example", [path.name for path in sorted(EXAMPLES.glob("*.yaml"))])
def test_every_example_is_a_configuration_of_this_machine(example: str) -> None:
    found = config(f"stack={EXAMPLES / example}")

    assert (found.infra.mode, found.queue.storage, found.queue.journal) == ("ray", "shm", None)
    assert (found.run.folder, found.run.resume, found.infra.address, found.metrics.port) == (None, "off", None, 0)
    assert all(not group.label_selector and group.ranks_per_node is None for group in found.device_groups())


def test_sizes_are_those_of_the_spec_and_ranks_fit_the_machine() -> None:
    stack = f"stack={EXAMPLES / 'cpu-cluster.yaml'}"
    found, roomy = config(stack), config(stack, here=Here(cpus=8, gpus=0, has_ray=True))

    assert (found.mesh.sampler_dp, found.mesh.trainer_dp, found.mesh.reward_ranks) == (2, 2, 1)
    assert (found.loop.prompts_per_step, found.loop.steps, found.run.name) == (32, 75, "cpu-cluster")
    assert [group.cpus_per_rank for group in found.device_groups()] == [0, 0, 0]
    assert [group.cpus_per_rank for group in roomy.device_groups()] == [1, 1, 1]


def test_gpus_are_taken_where_there_are_some_and_stood_in_for_elsewhere() -> None:
    stack = f"stack={EXAMPLES / 'vllm-2x2-gpu.yaml'}"
    here, there = made(stack), made(stack, here=Here(cpus=64, gpus=6, has_ray=True))

    assert here.environment == {"TWINKLE_DEVICE_ALIASES": "cuda:cpu"}
    assert "model.device=cpu" in here.arguments
    assert there.environment == {}
    assert "model.device=cuda" in there.arguments
    assert config(stack, here=Here(cpus=64, gpus=6, has_ray=True)).sampler.engine == "vllm"


@pytest.mark.parametrize(
    ("own", "here"), [(["infra=local"], LAPTOP), ([], Here(cpus=8, gpus=0, has_ray=False))], ids=["asked", "no ray"]
)
def test_one_process_takes_all_ranks_in_turns(own: list[str], here: Here) -> None:
    found = config(f"stack={EXAMPLES / 'cpu-cluster.yaml'}", *own, here=here)

    assert (found.infra.mode, found.mesh.sampler_dp, found.mesh.reward_ranks) == ("local", 1, 0)
    assert found.mesh.trainer_dp == 2


def test_a_persons_overrides_win_and_are_listed() -> None:
    arguments = [f"stack={EXAMPLES / 'quickstart.yaml'}", "loop.steps=3", "run.name=mine", "-m"]
    found = made(*arguments)

    assert config(*arguments[:-1]).loop.steps == 3
    assert [each for each in found.arguments if each.startswith(("loop.steps", "run.name"))] == arguments[1:3]
    assert found.own == ["loop.steps=3", "run.name=mine"]
    assert "-m" in found.arguments
    text = "\n".join(found.lines())
    assert "Stack quickstart of " in text
    assert "queue.storage=shm" in text
    assert "loop.steps=3" in text


STACK = (EXAMPLES / "quickstart.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "named", "match"),
    [
        (None, "", r"stack=.*:1: cannot be read: No such file or directory"),
        ("a: [", "", r"stack\.yaml:1: no YAML"),
        ("kind: ConfigMap", "", r"no TrainingStack in it \(apiVersion: twinkle.dev/v1alpha1\)"),
        (STACK + "---\n" + STACK.replace("name: quickstart", "name: other"), "", "holds 2 stacks, other, quickstart"),
        (STACK, ":other", "holds no TrainingStack called 'other'; there is quickstart"),
        (STACK.replace("role: trainer", "role: trainr"), "", r"stack\.yaml:\d+: spec\.deviceGroups\[1\]\.role.*trainr"),
        (STACK.replace("loop.steps=250", "run.root=/"), "", r"spec\.run\.overrides\[0\]: .* is owned by the spec"),
    ],
)
def test_what_is_no_stack_is_one_sentence(tmp_path: Path, text: str | None, named: str, match: str) -> None:
    file = tmp_path / "stack.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=match):
        made(f"stack={file}{named}")


def test_two_stacks_on_one_command_line_are_refused() -> None:
    with pytest.raises(ConfigError, match="there can be one stack"):
        made("stack=a.yaml", "stack=b.yaml")


def test_one_of_several_stacks_is_chosen_by_name(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STACK + "---\n" + STACK.replace("name: quickstart", "name: other"))

    assert config(f"stack={tmp_path / 'two.yaml'}:other").run.name == "other"


def test_the_command_trains_the_stack(trainer: Trainer) -> None:
    outcome = trainer.run(f"stack={EXAMPLES / 'quickstart.yaml'}", "infra=local", "loop.steps=2")

    assert outcome.code == 0, outcome
    assert [line for line in outcome.err.splitlines() if "yours" in line and "infra=local" in line]
    assert len(read_rows(trainer.latest / "metrics.jsonl")) == 2
    assert read_json(trainer.latest / "run.json")["settings"]["loop.prompts_per_step"] == 8


def test_the_command_says_what_is_wrong(trainer: Trainer) -> None:
    assert_one_sentence(trainer.run("stack=nowhere.yaml"), 2, "stack=nowhere.yaml", "No such file")
