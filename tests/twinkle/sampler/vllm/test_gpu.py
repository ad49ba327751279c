"""vLLMSampler on CUDA devices: run by ``pytest -m gpu`` where there are some."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.twinkle.sampler.conftest import load, logprobs_uncached
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from tests.twinkle.sampler.vllm.conftest import start
from twinkle.data_format import SamplingParams
from twinkle.model.tiny import make_tiny_qwen2

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}]
PARAMS = SamplingParams(max_tokens=20, seed=1, ignore_eos=True, temperature=0.7, top_p=0.9)


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen2(tmp_path_factory.mktemp("wide"), hidden_size=256)


def settings(**engine_args: Any) -> dict[str, Any]:
    return {"engine_args": {"dtype": "float32", "gpu_memory_utilization": 0.3, "enforce_eager": True} | engine_args}


def assert_exact(sampler: Any, name: str, model: Any) -> None:
    for s in sampler.sample(PROMPTS, PARAMS, name, num_samples=2).sequences:
        prompt = PROMPTS[s.prompt_index]["input_ids"]
        # GPU kernels round float32 products to TF32 in places
        assert s.logprobs == pytest.approx(logprobs_uncached(model, prompt, s.tokens), abs=5e-3)


def test_logprobs_adapters_and_sleep(wide_folder: Path) -> None:
    model, adapted = load(wide_folder), make_adapter(wide_folder, 1)
    with start(wide_folder, **settings(enable_sleep_mode=True)) as sampler:
        sampler.add_adapter_to_model("a", config_of(adapted), state_dict=weights_of(adapted))
        before = sampler.sample(PROMPTS, PARAMS).sequences
        assert_exact(sampler, "", model)
        assert_exact(sampler, "a", adapted)
        free = torch.cuda.mem_get_info()[0]
        sampler.sleep()
        assert torch.cuda.mem_get_info()[0] > free
        sampler.wake()
        assert [s.tokens for s in sampler.sample(PROMPTS, PARAMS).sequences] == [s.tokens for s in before]
        assert_exact(sampler, "a", adapted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_hold_one_model(wide_folder: Path) -> None:
    with start(wide_folder, **settings(tensor_parallel_size=2)) as sampler:
        assert_exact(sampler, "", load(wide_folder))
