"""TorchSampler beside `generate` and beside twinkle-kit's TorchSampler, and what it must be exact in.

The same requests on both sides, in turns, in one run. `generate` gets its best case: batches of equal prompts, sampling
without log-probs. Where lengths differ, its batches run until their longest response is done, as they do.
"""

import json
import math
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from benchmarks.peer_venv import TWINKLE_KIT
from benchmarks.table import Figure, largest_at_most, median_at_most, missing, more, times_at_least
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.model.folder import read_model
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2
from twinkle.sampler import TorchSampler
from twinkle.sampler.choosing import RowControls, sampling_logprobs

ROUNDS = 7
KIT_ROUNDS, KIT_TIMEOUT_S = 5, 400.0
ROWS, PROMPT, TOKENS = 64, 16, 192
REQUESTS, LONGEST = 256, 512
RESIDENT = 8
CPU = torch.device("cpu")
DRIVER = Path(__file__).with_name("kit_driver.py")


def measure() -> list[Figure]:
    """Every figure; minutes."""
    with tempfile.TemporaryDirectory() as folder:
        opt = make_tiny_opt(Path(folder) / "opt", max_positions=1024)
        qwen2 = make_tiny_qwen2(Path(folder) / "qwen2")
        large = make_tiny_qwen2(Path(folder) / "large", hidden_size=512, layers=5)
        figures = [_equal(opt, "OPT"), _equal(qwen2, "Qwen2"), _spread(qwen2), _beside_kit(qwen2)]
        figures += [figure for model in (opt, qwen2) for figure in _exactness(model)]
        figures += [_greedy(qwen2)]
        figures += _swaps(opt, "small", rank=8, limit_ms=10) + _swaps(large, "50 MB", rank=256, limit_ms=200)
    return figures


def rows(figures: Sequence[Figure]) -> list[tuple[Any, ...]]:
    """(name, ours, other, ratio, limit, spread, ok) of each figure; medians, None where there is no such thing."""

    def median(values: Sequence[float]) -> float | None:
        return statistics.median(values) if values else None

    return [
        (f.name, median(f.values), median(f.peer), median(f.ratios), f.target, _range(f.values), f.reached)
        for f in figures
    ]


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def _prompts(count: int) -> list[list[int]]:
    numbers = random.Random(0)
    return [[numbers.randrange(4, 60) for _ in range(PROMPT)] for _ in range(count)]


def _ours(sampler: TorchSampler, prompts: Sequence[Sequence[int]], lengths: Sequence[int], **settings: Any) -> float:
    """Tokens a second of one call."""
    each = [SamplingParams(max_tokens=n, ignore_eos=True, seed=i, **settings) for i, n in enumerate(lengths)]
    began = time.perf_counter()
    response = sampler.sample([{"input_ids": prompt} for prompt in prompts], each)
    seconds = time.perf_counter() - began
    assert [len(s.tokens) for s in response.sequences] == list(lengths)
    return sum(lengths) / seconds


def _of_generate(model: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Tokens a second that were asked for, in batches of ROWS requests that run until the longest is done."""
    began = time.perf_counter()
    for start in range(0, len(prompts), ROWS):
        longest = max(lengths[start : start + ROWS])
        ids = torch.tensor(prompts[start : start + ROWS])
        output = _generate(model, ids, longest, do_sample=True, top_k=0)
        assert output.shape == (len(ids), PROMPT + longest)
    return sum(lengths) / (time.perf_counter() - began)


@torch.inference_mode()
def _generate(model: Any, ids: torch.Tensor, tokens: int, **settings: Any) -> torch.Tensor:
    mask = torch.ones_like(ids)
    model.generation_config.eos_token_id = None  # nothing ends a response before its length, on either side
    output: torch.Tensor = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=0, **settings)
    return output


def _equal(folder: Path, name: str) -> Figure:
    prompts, lengths = _prompts(ROWS), [TOKENS] * ROWS
    model = read_model(folder, CPU, torch.float32)
    with TorchSampler(folder, max_rows=ROWS) as sampler:
        ours, theirs = _in_turns(
            lambda: _ours(sampler, prompts, lengths), lambda: _of_generate(model, prompts, lengths), ROUNDS
        )
    what = f"{name}, {ROWS} responses of {TOKENS} tokens: tokens/s beside generate"
    return times_at_least(what, ours, theirs, 1.0, "tokens/s", more)


def _spread(folder: Path) -> Figure:
    numbers = random.Random(1)
    lengths = [max(1, min(LONGEST, int(math.exp(numbers.gauss(4, 1))))) for _ in range(REQUESTS)]
    prompts, model = _prompts(REQUESTS), read_model(folder, CPU, torch.float32)
    with TorchSampler(folder, max_rows=ROWS) as sampler:
        ours, theirs = _in_turns(
            lambda: _ours(sampler, prompts, lengths), lambda: _of_generate(model, prompts, lengths), 3
        )
    what = f"Qwen2, {REQUESTS} responses of log-normal lengths (median 55, longest {max(lengths)}), {ROWS} at once"
    return times_at_least(f"{what}: tokens/s beside generate", ours, theirs, 1.5, "tokens/s", more)


def _beside_kit(folder: Path) -> Figure:
    name, target = "TorchSampler of twinkle-kit 0.1.3, 64 responses of 64 tokens: tokens/s", "ratio >= 20"
    prompts, tokens = _prompts(ROWS), 64
    order = {"folder": str(folder), "prompts": prompts, "tokens": tokens}
    try:
        with _kit() as kit, TorchSampler(folder, max_rows=ROWS) as sampler:
            print(json.dumps(order), file=kit.stdin, flush=True)

            def theirs() -> float:
                count, seconds = json.loads(kit.stdout.readline())
                return float(count / seconds)

            def next_of_theirs() -> float:
                print(file=kit.stdin, flush=True)
                return theirs()

            theirs(), _ours(sampler, prompts, [tokens] * ROWS)
            ours, peer = _in_turns(lambda: _ours(sampler, prompts, [tokens] * ROWS), next_of_theirs, KIT_ROUNDS)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        return missing(name, target, f"twinkle-kit 0.1.3 could not be run: {error}")
    return times_at_least(name, ours, peer, 20, "tokens/s", more)


@contextmanager
def _kit() -> Iterator[Any]:
    """twinkle-kit's process, which ends with the block, and by force when it takes too long."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command: list[str | Path] = [TWINKLE_KIT.python(), "-P", DRIVER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        watch = threading.Timer(KIT_TIMEOUT_S, process.kill)
        watch.start()
        try:
            yield process
        finally:
            watch.cancel()
            process.kill()


def _in_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    ours(), theirs()
    pairs = [(ours(), theirs()) if i % 2 else (theirs(), ours())[::-1] for i in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _exactness(folder: Path) -> list[Figure]:
    """Largest differences to a forward of Hugging Face: ragged prompts, base and adapters in one batch, after swaps."""
    raw: list[float] = []
    sampled: list[float] = []
    params = SamplingParams(max_tokens=40, temperature=0.7, top_p=0.9, seed=1, ignore_eos=True)
    prompts = [list(range(4, 4 + n)) for n in (1, 3, 17, 40)]
    with TorchSampler(folder, max_rows=16) as sampler:
        for seed in range(3):
            models = {"": read_model(folder, CPU, torch.float32), "a": _adapted(folder, seed, 8)}
            _add(sampler, "a", models["a"])
            streams = {name: sampler.stream(_inputs(prompts), params, name, num_samples=3) for name in models}
            for name, stream in streams.items():
                for sequence in stream:
                    difference = _differences(models[name], prompts[sequence.prompt_index], sequence, params)
                    raw.append(difference[0])
                    sampled.append(difference[1])
    what = f"log-prob, distance from a Hugging Face forward, {folder.name}"
    return [
        largest_at_most(f"{what}, raw", raw, 1e-5, ""),
        largest_at_most(f"{what}, of the distribution sampled from (0.7, 0.9)", sampled, 1e-5, ""),
    ]


def _greedy(folder: Path) -> Figure:
    """Responses whose greedy tokens are not those of `generate`."""
    prompts, model = _prompts(ROWS), read_model(folder, CPU, torch.float32)
    expected = _generate(model, torch.tensor(prompts), TOKENS, do_sample=False)[:, PROMPT:].tolist()
    with TorchSampler(folder) as sampler:
        params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
        found = [s.tokens for s in sampler.sample(_inputs(prompts), params).sequences]
    different = sum(one != other for one, other in zip(found, expected, strict=True))
    return largest_at_most(f"greedy responses of {ROWS} that differ from generate's", [different], 0, "")


def _swaps(folder: Path, size: str, *, rank: int, limit_ms: float) -> list[Figure]:
    """Milliseconds of a swap with 8 adapters resident; the first token after it is compared with the new weights."""
    models = [_adapted(folder, seed, rank) for seed in range(2)]
    weights = [{key: t.clone() for key, t in get_peft_model_state_dict(model).items()} for model in models]
    milliseconds = []
    with TorchSampler(folder) as sampler:
        for number in range(RESIDENT):
            _add(sampler, f"adapter{number}", models[0])
        for swap in range(2 * ROUNDS):
            began = time.perf_counter()
            sampler.add_adapter_to_model("adapter3", models[0].peft_config["default"], state_dict=weights[swap % 2])
            milliseconds.append(1e3 * (time.perf_counter() - began))
            params = SamplingParams(max_tokens=1, seed=swap)
            first = sampler.sample(_inputs([[5, 6, 7]]), params, "adapter3").sequences[0]
            difference, _ = _differences(models[swap % 2], [5, 6, 7], first, params)
            assert difference <= 1e-4, f"the first token after swap {swap} is {difference} away from the new weights"
    megabytes = sum(t.numel() * t.element_size() for t in weights[0].values()) / 1e6
    return [median_at_most(f"adapter swap, {size} ({megabytes:.1f} MB), 8 resident", milliseconds, limit_ms, "ms")]


@torch.no_grad()
def _differences(model: Any, prompt: list[int], s: SampledSequence, params: SamplingParams) -> tuple[float, float]:
    """Largest differences of raw and of sampled log-probs to an uncached forward."""
    logits_TV = model(input_ids=torch.tensor([prompt + s.tokens])).logits[0, len(prompt) - 1 : -1]
    raw_TV = logits_TV.double().log_softmax(-1)
    drawn_TV = sampling_logprobs(raw_TV, RowControls.of([params] * len(s.tokens), CPU), None)
    at = (torch.arange(len(s.tokens)), torch.tensor(s.tokens))
    ours = (torch.tensor(s.logprobs).double(), torch.tensor(s.sampler_logprobs).double())
    return float((raw_TV[at] - ours[0]).abs().max()), float((drawn_TV[at] - ours[1]).abs().max())


def _inputs(prompts: Sequence[Sequence[int]]) -> Any:
    return [{"input_ids": prompt} for prompt in prompts]


def _adapted(folder: Path, seed: int, rank: int) -> Any:
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    model = get_peft_model(read_model(folder, CPU, torch.float32), settings).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 / rank)
    return model


def _add(sampler: TorchSampler, name: str, model: Any) -> None:
    sampler.add_adapter_to_model(name, model.peft_config["default"], state_dict=get_peft_model_state_dict(model))


if __name__ == "__main__":
    for row in rows(measure()):
        print(row)
