"""One engine for all tests of a process: it starts in seconds, and tests leave it as they found it."""

import importlib
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NO_VLLM = "vLLM is not installed here: there is none for macOS, and `make venv EXTRA=` leaves it out"
# Blocks shorter than the prompts of the tests, so that the prefix cache is really used.
ENGINE_ARGS = {"block_size": 32}


def start(folder: Path, **settings: Any) -> Any:
    """A vLLMSampler on the model in a folder; skips the test where there is no vLLM."""
    if find_spec("vllm") is None:
        pytest.skip(NO_VLLM)
    from twinkle.sampler.vllm_sampler import vLLMSampler

    return vLLMSampler(folder, **{"engine_args": ENGINE_ARGS, "max_adapters": 3, "max_lora_rank": 8} | settings)


def imported(name: str) -> Any:
    """A module of this folder that imports vLLM; skips the test where there is no vLLM."""
    if find_spec("vllm") is None:
        pytest.skip(NO_VLLM)
    with warnings.catch_warnings(action="ignore"):  # of torch, about vLLM
        return importlib.import_module(f"{__package__}.{name}")


@pytest.fixture(scope="session")
def engine(opt_folder: Path) -> Iterator[Any]:
    with start(opt_folder) as sampler:
        yield sampler


@pytest.fixture
def sampler(engine: Any) -> Iterator[Any]:
    """The engine, without adapters before and after a test."""
    yield engine
    for name in engine.adapter_names:
        engine.remove_adapter(name)
