from __future__ import annotations

import shlex
import subprocess
from typing import Any

import msgspec
import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.kube.specs import stacks
from twinkle.config import TrainConfig
from twinkle.entrypoints.shell import typed
from twinkle.entrypoints.train import schema
from twinkle_operator.observed import Stack
from twinkle_operator.overrides import overrides, pods, ranks, value
from twinkle_operator.owned import OWNED, owner
from twinkle_operator.render import entrypoint
from twinkle_operator.spec import Spec

PLACE = {"namespace": "team", "name": "demo", "uid": "5e0b7f0e-1111-2222-3333-444444444444"}


def spec_of(stack: dict[str, Any]) -> Spec:
    return msgspec.convert(stack["spec"], Spec)


def composed(given: list[str]) -> TrainConfig:
    ConfigStore.instance().store(name="train_schema", node=schema())
    with initialize_config_module("hydra_conf", version_base="1.3"):
        return typed(compose("config", given), TrainConfig)


@settings(max_examples=5, deadline=None)
@given(stacks())
def test_hydra_composes_what_the_spec_says(stack: dict[str, Any]) -> None:
    spec = spec_of(stack)
    run = msgspec.structs.replace(spec.run, experiment="quickstart", overrides=["loop.steps=9"])
    spec = msgspec.structs.replace(spec, run=run)
    groups = {role: [group for group in spec.device_groups if group.role == role] for role in ("sampler", "trainer")}
    config = composed(overrides(spec, **PLACE))

    assert config.loop.steps == 9
    assert config.loop.prompts_per_step == spec.controller.global_batch_size
    assert config.loop.samples_per_prompt == spec.controller.num_n_samples
    assert config.mesh.sampler_ranks == sum(map(ranks, groups["sampler"]))
    assert config.mesh.trainer_dp == groups["trainer"][0].mesh.dp
    assert (config.sampler.engine, config.queue.storage) == (groups["sampler"][0].engine, spec.storage.backend)
    assert config.infra.trainer.label_selector == {"twinkle.dev/device-group": groups["trainer"][0].name}
    assert config.infra.sampler.ranks_per_node == ranks(groups["sampler"][0]) // pods(groups["sampler"][0])
    assert (config.infra.mode, config.infra.address) == ("ray", "auto")
    assert (config.metrics.host, config.metrics.port) == ("0.0.0.0", 9400)
    assert (config.run.resume, config.run.resume_from) == ("auto", spec.run.resume_from)
    assert config.run.folder == f"{spec.run.volume.path if spec.run.volume else '/runs'}/team/demo-{PLACE['uid']}"
    assert config.queue.num_global_batch == spec.controller.num_global_batch
    assert set(config.queue.task_samplers) == {"rollout", "reward", "train"}
    if spec.model:
        assert config.model.id == spec.model


@settings(max_examples=50, deadline=None)
@given(stacks())
def test_the_spec_sets_what_it_owns_and_nothing_else(stack: dict[str, Any]) -> None:
    spec = spec_of(stack)
    made = overrides(spec, **PLACE)
    own = made[: len(made) - len(spec.run.overrides)]
    set_keys = {override.partition("=")[0] for override in own}

    assert made[len(own) :] == spec.run.overrides
    assert [override for override in own if owner(override, with_model=True) is None] == []
    never = {"run.name", "run.root", "infra.mode", "sampler.engine", "hydra", "mesh"}
    for owned in OWNED:
        for key in owned.keys:
            is_whole = key.endswith(".*") or any(other.startswith(f"{key}.") for other in set_keys)
            if not is_whole and key not in never and not owned.only_with_model and not key.startswith("infra.reward"):
                assert key in set_keys, key


def test_sampler_groups_are_one_mesh_on_the_nodes_of_all() -> None:
    group = {"role": "sampler", "engine": "vllm", "mesh": {"dp": 2, "tp": 2}}
    groups = [group | {"name": "a"}, group | {"name": "b"}, {"name": "t", "role": "trainer"}]
    spec = msgspec.convert({"deviceGroups": groups, "run": {"experiment": "quickstart"}}, Spec)
    made = overrides(spec, **PLACE)

    assert "mesh.sampler_dp=4" in made
    assert "infra.sampler.label_selector={twinkle.dev/device-group: 'in(a, b)'}" in made
    assert composed(made).infra.sampler.label_selector == {"twinkle.dev/device-group": "in(a, b)"}

    from ray._private.label_utils import validate_label_selector_value

    validate_label_selector_value("in(a, b)")


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30)


@settings(deadline=None)
@given(
    TEXTS | st.sampled_from(["null", "True", "1e3", "${oc.env:HOME}", "a\\${b}", "it's", "\\", "a,b", "{a: 1}", "'x'"])
)
def test_a_value_is_read_back_as_it_is(text: str) -> None:
    read = OverridesParser.create().parse_override(f"key={value(text)}").value()
    config = OmegaConf.create({"key": read, "b": "other"})

    assert config.key == text


@given(TEXTS.filter(lambda text: "\n" not in text))
@settings(max_examples=20, deadline=None)
def test_the_entrypoint_survives_kubelet_and_shell(text: str) -> None:
    groups = [{"name": "s", "role": "sampler"}, {"name": "t", "role": "trainer"}]
    run = {"experiment": "quickstart", "overrides": [f"data.path={text}"]}
    stack = Stack(**PLACE, generation=1, spec=msgspec.convert({"deviceGroups": groups, "run": run}, Spec))
    assert stack.spec is not None
    line = entrypoint(stack, stack.spec)
    expanded = line.replace("$$", "$")  # as the kubelet reads what is no $(NAME)
    assert "$(" not in line.replace("$$", "")
    output = subprocess.run(
        ["bash", "-c", f"twinkle-train() {{ for each; do printf '%s\\0' \"$each\"; done; }}; {expanded}"],
        capture_output=True,
        check=True,
    ).stdout.decode()

    assert output.split("\0")[:-1] == overrides(stack.spec, **PLACE)
    assert shlex.split(expanded)[1:] == overrides(stack.spec, **PLACE)


@pytest.mark.parametrize(
    ("capacity", "read"), [("8Gi", "8589934592"), ("1.5k", "1500"), (None, "null"), ("8Gx", "'8Gx'")]
)
def test_a_capacity_is_bytes(capacity: str | None, read: str) -> None:
    groups = [{"name": "s", "role": "sampler"}, {"name": "t", "role": "trainer"}]
    storage = {} if capacity is None else {"capacity": capacity}
    spec = msgspec.convert({"deviceGroups": groups, "run": {"experiment": "e"}, "storage": storage}, Spec)

    assert f"queue.capacity_bytes={read}" in overrides(spec, **PLACE)
