"""The engines that the contract suite runs on: a sampler of each, and the slow, obviously right way to its logits."""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import AutoTokenizer

from tests.twinkle.sampler.conftest import load, logits_uncached
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from tests.twinkle.sampler.vllm.conftest import start
from twinkle.model.tiny import make_tiny_opt
from twinkle.sampler import Sampler, TorchSampler

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "samplers.md"
Logits = Callable[[Sequence[int], Sequence[int]], Tensor]


@dataclass(frozen=True)
class AdapterCase:
    """An adapter that matters: what adds it to the sampler, and logits [response tokens, V] with it."""

    config: Any
    state_dict: Mapping[str, Tensor]
    logits: Logits


@dataclass(frozen=True)
class UnderTest:
    """A sampler on the model ``make_tiny_qwen2`` writes (1024 positions, its tokenizer), and what it must give.

    Attributes:
        logits: of the model without an adapter, for (prompt, response).
        adapters: three of one configuration and other weights; empty where the engine takes none.
        weights: other weights of the whole model with their logits, and its own; None where they cannot be replaced.
        again: makes another sampler like this one; None where that takes too long.
    """

    sampler: Sampler
    logits: Logits
    adapters: Sequence[AdapterCase] = ()
    weights: tuple[Mapping[str, Tensor], Logits, Mapping[str, Tensor]] | None = None
    again: Callable[[], Sampler] | None = field(default=None)


@contextlib.contextmanager
def torch_sampler(folder: Path) -> Iterator[UnderTest]:
    """TorchSampler with places for few rows, so that rows wait, enter and leave."""
    with TorchSampler(folder, max_rows=8) as sampler:
        yield _on_a_folder(sampler, folder, lambda: TorchSampler(folder))


@contextlib.contextmanager
def torch_sampler_of_opt(folder: Path) -> Iterator[UnderTest]:
    """The same with learned positions, and with layers that see all tokens in a row."""
    with torch_sampler(make_tiny_opt(folder.parent / "long_opt", max_positions=1024)) as under_test:
        yield under_test


@contextlib.contextmanager
def toy_sampler(folder: Path) -> Iterator[UnderTest]:
    """The engine of docs/samplers.md, as it stands there."""
    toy = _toy_module()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))

    def table(seed: int) -> Tensor:
        return torch.randn(len(tokenizer), len(tokenizer), generator=torch.Generator().manual_seed(seed))

    def case(seed: int) -> AdapterCase:
        return AdapterCase(LoraConfig(), {"table": table(seed)}, _by_table(table(seed)))

    with toy.ToySampler(tokenizer, table(0)) as sampler:
        yield UnderTest(
            sampler,
            _by_table(table(0)),
            [case(seed) for seed in (1, 2, 3)],
            ({"table": table(4)}, _by_table(table(4)), {"table": table(0)}),
            lambda: toy.ToySampler(tokenizer, table(0)),
        )


@contextlib.contextmanager
def vllm_sampler(folder: Path) -> Iterator[UnderTest]:
    """vLLMSampler with room for fewer rows than the suite asks for at once."""
    with start(folder, engine_args={"max_num_seqs": 8, "block_size": 32}) as sampler:
        yield _on_a_folder(sampler, folder, lambda: start(folder, max_adapters=0))


ENGINES: dict[str, Callable[[Path], AbstractContextManager[UnderTest]]] = {
    "torch": torch_sampler,
    "torch-opt": torch_sampler_of_opt,
    "toy": toy_sampler,
    "vllm": vllm_sampler,
}


def _on_a_folder(sampler: Sampler, folder: Path, again: Callable[[], Sampler]) -> UnderTest:
    """An engine that runs models of Hugging Face, beside their own forward."""
    own, other = load(folder), load(folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)

    def case(seed: int) -> AdapterCase:
        model = make_adapter(folder, seed)
        return AdapterCase(config_of(model), weights_of(model), _uncached(model))

    weights = (other.state_dict(), _uncached(other), own.state_dict())
    return UnderTest(sampler, _uncached(own), [case(seed) for seed in range(3)], weights, again)


def _uncached(model: Any) -> Logits:
    return lambda prompt, response: logits_uncached(model, prompt, response)


def _by_table(table_VV: Tensor) -> Logits:
    return lambda prompt, response: table_VV[[prompt[-1], *response[:-1]]]


def _toy_module() -> Any:
    source = re.search(r"```python\n(# toy_sampler\.py\n.*?)```", GUIDE.read_text(), re.DOTALL)
    assert source is not None, "docs/samplers.md shows no toy_sampler.py"
    spec = importlib.util.spec_from_loader("toy_sampler_of_the_guide", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(source[1], str(GUIDE), "exec"), module.__dict__)
    return module
