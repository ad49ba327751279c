"""What people get wrong, with every sampler of a model's folder, here and on a device group: a typed error that names
the thing, and a sampler that works on."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import twinkle
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from tests.twinkle.sampler.vllm.conftest import start
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import SamplingParams
from twinkle.errors import AdapterError, ConfigError, DataError, ModelNotFoundError
from twinkle.infra.handle import Handle
from twinkle.sampler import Sampler, TorchSampler

pytestmark = pytest.mark.timeout(300)

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}]
PARAMS = SamplingParams(max_tokens=4, seed=1, ignore_eos=True)
GROUPS = [DeviceGroup("samplers", 1, "cpu", cpus_per_rank=0), DeviceGroup("others", 1, "cpu", cpus_per_rank=0)]
KINDS = {
    "torch": lambda folder, **where: TorchSampler(folder, **where),
    "vllm": lambda folder, **where: start(folder, **where),
}


MADE = ["torch-here", "vllm-here", "torch-on ray", pytest.param("vllm-on ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, qwen2_folder: Path) -> Iterator[tuple[Callable[..., Any], Any]]:
    """How a sampler is made in this place, and one that is."""
    kind, _, place = request.param.partition("-")
    make = KINDS[kind]
    if place == "here":
        with make(qwen2_folder) as sampler:
            yield make, sampler
        return
    request.getfixturevalue("ray_cluster")
    twinkle.initialize("ray", groups=GROUPS, timeout_s=20)
    yield make, make(qwen2_folder, remote_group="samplers")
    twinkle.initialize("local")


@pytest.fixture
def sampler(made: tuple[Callable[..., Any], Any]) -> Iterator[Sampler]:
    """It answers after a test as it did before, and has the adapters that it had."""
    sampler = made[1]
    before = sampler.sample(PROMPTS, PARAMS).sequences
    yield sampler
    assert sampler.sample(PROMPTS, PARAMS).sequences == before
    assert sampler.adapter_names == []


def broken(folder: Path, tmp_path: Path, name: str, content: bytes | None) -> Path:
    """An adapter's folder one of whose files is another, or gone."""
    make_adapter(folder, 1).save_pretrained(str(tmp_path), save_embedding_layers=False)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    return tmp_path


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (WEIGHTS, None, "holds no adapter_model.safetensors"),
        (WEIGHTS, b"", "adapter_model.safetensors cannot be read"),
        (WEIGHTS, b"\x10\0\0\0\0\0\0\0{}", "adapter_model.safetensors cannot be read"),
        (CONFIG, None, "no adapter found"),
        (CONFIG, b"{", "adapter_config.json is not a configuration"),
        (CONFIG, b"[]", "adapter_config.json is not a configuration"),
        (CONFIG, b"{}", "of kind None"),
        (CONFIG, b'{"peft_type": "LORA", "r": "eight"}', "has r='eight'"),
        (CONFIG, b'{"peft_type": "IA3", "target_modules": ["q_proj"]}', "of kind 'IA3'"),
    ],
)
def test_a_broken_adapter_folder(
    sampler: Sampler, qwen2_folder: Path, tmp_path: Path, name: str, content: bytes | None, match: str
) -> None:
    with pytest.raises(AdapterError, match=match):
        sampler.add_adapter_to_model("a", broken(qwen2_folder, tmp_path, name, content))


def test_an_adapter_of_another_rank_target_or_model(sampler: Sampler, qwen2_folder: Path, opt_folder: Path) -> None:
    right, other = make_adapter(qwen2_folder, 1), make_adapter(opt_folder, 1)
    wrong: list[tuple[Any, Any, str]] = [
        ({**config_of(right).to_dict(), "r": 5}, weights_of(right), "adapter 'a'.*shape|adapter 'a'.*lora_A"),
        ({**config_of(right).to_dict(), "target_modules": ["q_proj"]}, weights_of(right), "adapter 'a'"),
        ({"r": 4, "target_modules": ["absent"]}, None, "absent"),
        ({"r": 4, "target_modules": 3}, None, "adapter"),
        (config_of(other), weights_of(other), "adapter 'a'"),
    ]
    for config, tensors, match in wrong:
        with pytest.raises(AdapterError, match=match):
            sampler.add_adapter_to_model("a", config, state_dict=tensors)
    sampler.add_adapter_to_model("a", config_of(right), state_dict=weights_of(right))
    assert len(sampler.sample(PROMPTS, PARAMS, "a").sequences) == 2
    sampler.remove_adapter("a")


def test_an_unknown_adapter(sampler: Sampler) -> None:
    with pytest.raises(AdapterError, match="unknown adapter 'a'; known adapters: none; add one"):
        sampler.sample(PROMPTS, PARAMS, "a")
    with pytest.raises(AdapterError, match="unknown adapter 'a'"):
        list(sampler.stream(PROMPTS, PARAMS, "a"))
    with pytest.raises(AdapterError, match="unknown adapter 'a'"):
        sampler.remove_adapter("a")


def test_inputs_that_cannot_be_sampled_from(sampler: Sampler) -> None:
    positions = sampler.positions
    assert positions is not None
    long = {"input_ids": [5] * positions}
    for odd, match in (
        ({"input_ids": []}, "input 1 is an empty prompt"),
        (long, f"input 1 has {positions} tokens .* more than the {positions} positions"),
        ({"input_ids": [10**6]}, "input 1 has the token id 1000000"),
        ({"text": "a"}, "input 1 is .*'messages' or 'input_ids'"),
        ({"messages": []}, "'messages'"),
        ({"messages": [{"role": "user"}]}, "message 0 has the content None"),
    ):
        with pytest.raises(DataError, match=match):
            sampler.sample([PROMPTS[0], odd], PARAMS)
        with pytest.raises(DataError, match=match):
            list(sampler.stream([PROMPTS[0], odd], PARAMS))
    with pytest.raises(DataError, match="inputs is"):
        sampler.sample([], PARAMS)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"stop": ["a", 3]}, r"SamplingParams\.stop is \['a', 3\]"),
        ({"stop": 3}, r"SamplingParams\.stop is 3"),
        ({"stop_token_ids": ["a"]}, r"SamplingParams\.stop_token_ids"),
        ({"top_p": 0}, r"SamplingParams\.top_p is 0"),
        ({"top_p": "1"}, r"SamplingParams\.top_p"),
    ],
)
def test_parameters_are_refused_where_they_are_written(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SamplingParams(**settings)


def test_parameters_that_this_model_cannot_meet(sampler: Sampler) -> None:
    for params, match in (
        (SamplingParams(stop_token_ids=[10**6]), "stop_token_ids has 1000000"),
        ([PARAMS], "inputs has 2 items and sampling_params 1|sampling_params has 1 entries for 2 inputs"),
        ([PARAMS, "greedy"], r"sampling_params\[1\] is 'greedy'"),
    ):
        wrong: Any = params
        with pytest.raises(ConfigError, match=match):
            sampler.sample(PROMPTS, wrong)


def test_a_model_folder_without_a_tokenizer(
    made: tuple[Callable[..., Any], Any], sampler: Sampler, qwen2_folder: Path, tmp_path: Path
) -> None:
    make, on_ray = made[0], type(sampler) is Handle
    missing, broken = tmp_path / "missing", tmp_path / "broken"
    for folder in (missing, broken):
        shutil.copytree(qwen2_folder, folder)
        for path in folder.glob("tokenizer*"):
            path.unlink() if folder is missing else path.write_text("{")

    for folder in (missing,) if on_ray else (missing, broken):
        where = {"remote_group": "others"} if on_ray else {}
        with pytest.raises(ModelNotFoundError, match=f"{folder.name}' holds no tokenizer"):
            make(folder, **where)


def test_a_mesh_that_does_not_fit(made: tuple[Callable[..., Any], Any], sampler: Sampler, qwen2_folder: Path) -> None:
    with pytest.raises(ConfigError, match="device_mesh"):
        made[0](qwen2_folder, device_mesh=DeviceMesh.from_sizes(dp_size=3), remote_group="others")


def test_ranks_that_the_cluster_has_not_got(ray_cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"device group 'many' asks for 64 ranks.*free"):
        twinkle.initialize("ray", groups=[DeviceGroup("many", 64, "cpu")], timeout_s=1)
    twinkle.initialize("local")
