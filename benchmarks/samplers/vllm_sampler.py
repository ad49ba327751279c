"""vLLMSampler beside vLLM as it is: the same requests, in turns, in one run; what is timed is checked too."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

import twinkle
from benchmarks.samplers.bare_vllm import BareVLLM
from benchmarks.table import Figure, largest_at_most, median_at_most, more, times_at_least
from twinkle import DeviceGroup
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.model.folder import read_model
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2
from twinkle.sampler import vLLMSampler
from twinkle.sampler.choosing import RowControls, sampling_logprobs

ROUNDS = 7
PROMPTS = [[5 + i % 60, 6, 7, 8] for i in range(16)]
SAMPLES, TOKENS = 4, 50
INPUTS: Any = [{"input_ids": prompt} for prompt in PROMPTS]
ONE = SamplingParams(max_tokens=1, seed=0)
TURNS, CALLS = 10, 20
RESIDENT = 8
CPU = torch.device("cpu")


def measure() -> list[Figure]:
    """Every figure; minutes."""
    with tempfile.TemporaryDirectory() as folder:
        small = make_tiny_opt(Path(folder) / "small")
        large = make_tiny_qwen2(Path(folder) / "large", hidden_size=512, layers=5)
        with vLLMSampler(small, max_adapters=0) as sampler:  # as the bare engine
            figures = [*_beside_bare(sampler, small, "in process"), _callers(sampler), *_through_ray(sampler, small)]
        with vLLMSampler(small) as sampler:
            figures += _exactness(sampler, small) + _swaps(sampler, small, "small", rank=8, limit_ms=10)
        with vLLMSampler(large, max_lora_rank=256) as sampler:
            figures += _swaps(sampler, large, "50 MB", rank=256, limit_ms=200)
    return figures


def rows(figures: Sequence[Figure]) -> list[tuple[Any, ...]]:
    """(name, ours, other, ratio, limit, spread, ok) of each figure; medians, None where there is no such thing."""

    def median(values: Sequence[float]) -> float | None:
        return statistics.median(values) if values else None

    return [
        (
            f.name,
            median(f.values),
            median(f.peer),
            median(f.ratios),
            f.target,
            (min(f.values), max(f.values)),
            f.reached,
        )
        for f in figures
    ]


def tokens_per_s(sampler: Any, seed: int) -> float:
    """Of one call of `sample` that asks for what the bare engine is asked for."""
    began = time.perf_counter()
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, seed=seed)
    response = sampler.sample(INPUTS, params, num_samples=SAMPLES)
    seconds = time.perf_counter() - began
    tokens = sum(len(s.tokens) for s in response.sequences)
    assert tokens == len(PROMPTS) * SAMPLES * TOKENS
    assert all(len(s.logprobs) == len(s.sampler_logprobs) == TOKENS and s.text for s in response.sequences)
    return tokens / seconds


def _beside_bare(sampler: Any, folder: Path, where: str) -> list[Figure]:
    """Against the same requests (seeds and log-probs), and against those that give vLLM least to do."""
    ours: list[float] = []
    same: list[float] = []
    least: list[float] = []
    with BareVLLM(folder) as bare:
        for i in range(-2, ROUNDS):  # two rounds to warm up
            values = tokens_per_s(sampler, i + 2), _of_bare(bare, i + 2, 0), _of_bare(bare, None, None)
            if i >= 0:
                for kept, value in zip((ours, same, least), values, strict=True):
                    kept.append(value)
    what = f"tokens/s of {len(PROMPTS) * SAMPLES * TOKENS} tokens a call, {where}"
    return [
        times_at_least(f"{what}, beside LLM.generate with seeds and log-probs", ours, same, 0.95, "tokens/s", more),
        times_at_least(f"{what}, beside LLM.generate without both", ours, least, 0.95, "tokens/s", more),
    ]


def _of_bare(bare: BareVLLM, seed: int | None, logprobs: int | None) -> float:
    seconds, tokens = bare.generate(PROMPTS, SAMPLES, TOKENS, seed, logprobs)
    assert tokens == len(PROMPTS) * SAMPLES * TOKENS
    return tokens / seconds


def _through_ray(alone: Any, folder: Path) -> list[Figure]:
    """One replica on a device group: what is asked of it beside the bare engine, and what a call costs more."""
    twinkle.initialize("ray", groups=[DeviceGroup("samplers", 1, "cpu")])
    with vLLMSampler(folder, remote_group="samplers", max_adapters=0) as replica:
        figures = _beside_bare(replica, folder, "through Ray")
        added = _added_ms(lambda: replica.sample(INPUTS[0], ONE), lambda: alone.sample(INPUTS[0], ONE))
    twinkle.initialize("local")
    what = f"what Ray adds to a call of sample, in turns of {CALLS} calls"
    return [*figures, median_at_most(what, added, 3, "ms")]


def _added_ms(far: Callable[[], Any], near: Callable[[], Any]) -> list[float]:
    """Of each turn, the difference of the medians: a call right behind one of another engine finds cold caches."""
    turns = []
    for _ in range(TURNS + 1):  # the first one warms up
        both = [statistics.median(1e3 * _seconds(act) for _ in range(CALLS)) for act in (far, near)]
        turns.append(both[0] - both[1])
    return turns[1:]


def _callers(sampler: Any) -> Figure:
    """8 callers of 8 prompts each: one after another, and all at once."""
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, seed=0)
    responses: list[Any] = []

    def call() -> None:
        responses.append(sampler.sample(INPUTS[:8], params))

    def at_once() -> None:
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def in_turns() -> None:
        for _ in range(8):
            call()

    together, alone = [], []
    for _ in range(ROUNDS):
        alone.append(8 * 8 * TOKENS / _seconds(in_turns))
        together.append(8 * 8 * TOKENS / _seconds(at_once))
    expected = [s.tokens for s in responses[0].sequences]
    assert all([s.tokens for s in response.sequences] == expected for response in responses)
    return times_at_least(
        "8 callers of 8 prompts at once, beside the same one after another", together, alone, 4, "tokens/s", more
    )


def _exactness(sampler: Any, folder: Path) -> list[Figure]:
    """Largest differences to Hugging Face over ragged prompts, with and without an adapter, after a swap."""
    raw: list[float] = []
    sampled: list[float] = []
    params = SamplingParams(max_tokens=20, temperature=0.7, top_p=0.9, seed=1, ignore_eos=True)
    prompts = [list(range(4, 4 + n)) for n in (1, 3, 17, 40)]
    for seed, name in enumerate(["", "adapter", "adapter"]):
        model = _adapted(folder, seed, 8) if name else read_model(folder, CPU, torch.float32)
        if name:
            _add(sampler, name, model)
        for s in sampler.sample([{"input_ids": p} for p in prompts], params, name, num_samples=4).sequences:
            differences = _differences(model, prompts[s.prompt_index], s, params)
            raw.append(differences[0])
            sampled.append(differences[1])
    sampler.remove_adapter("adapter")
    return [
        largest_at_most("log-prob, distance from a Hugging Face forward, raw", raw, 1e-5, ""),
        largest_at_most(
            "log-prob, distance from a Hugging Face forward, of the distribution sampled from", sampled, 1e-5, ""
        ),
    ]


@torch.no_grad()
def _differences(model: Any, prompt: list[int], s: SampledSequence, params: SamplingParams) -> tuple[float, float]:
    ids = torch.tensor([prompt + s.tokens])
    logits_TV = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    raw_TV = logits_TV.double().log_softmax(-1)
    sampled_TV = sampling_logprobs(raw_TV, RowControls.of([params] * len(s.tokens), CPU), None)
    at = (torch.arange(len(s.tokens)), torch.tensor(s.tokens))
    raw, sampled = torch.tensor(s.logprobs).double(), torch.tensor(s.sampler_logprobs).double()
    return float((raw_TV[at] - raw).abs().max()), float((sampled_TV[at] - sampled).abs().max())


def _swaps(sampler: Any, folder: Path, size: str, *, rank: int, limit_ms: float) -> list[Figure]:
    """Milliseconds of a swap with 8 adapters resident; the first token after it is compared with the new weights."""
    models = [_adapted(folder, seed, rank) for seed in range(2)]
    weights = [{key: t.clone() for key, t in get_peft_model_state_dict(model).items()} for model in models]
    config = models[0].peft_config["default"]
    for number in range(RESIDENT):
        sampler.add_adapter_to_model(f"adapter{number}", config, state_dict=weights[0])
    milliseconds = []
    for swap in range(2 * ROUNDS):
        new = swap % 2
        act = lambda new=new: sampler.add_adapter_to_model("adapter3", config, state_dict=weights[new])  # noqa: E731
        milliseconds.append(1e3 * _seconds(act))
        first = sampler.sample(INPUTS[0], SamplingParams(max_tokens=1, seed=swap), "adapter3").sequences[0]
        raw, _ = _differences(models[new], PROMPTS[0], first, SamplingParams())
        assert raw <= 1e-4, f"the first token after swap {swap} is {raw} away from the new weights"
    for name in sampler.adapter_names:
        sampler.remove_adapter(name)
    megabytes = sum(t.numel() * t.element_size() for t in weights[0].values()) / 1e6
    what = f"adapter swap, {size} ({megabytes:.1f} MB), {RESIDENT} resident"
    return [median_at_most(what, milliseconds[2:], limit_ms, "ms")]


def _adapted(folder: Path, seed: int, rank: int) -> Any:
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    model = get_peft_model(read_model(folder, CPU, torch.float32), settings).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 / rank)
    return model


def _add(sampler: Any, name: str, model: Any) -> None:
    sampler.add_adapter_to_model(name, model.peft_config["default"], state_dict=get_peft_model_state_dict(model))


def _seconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    for row in rows(measure()):
        print(row)
