"""Two data-parallel replicas beside one, on the same requests, in turns: `python -m benchmarks.samplers replicas`.

All three actors live at once, each on one thread. The tokens of both sides are compared. The model is large enough for
a step to be its arithmetic: of a smaller one's step most is the same for a few rows as for many, and half of the rows
take more than half of the time.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import twinkle
from benchmarks.table import Figure, more, times_at_least
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import SamplingParams
from twinkle.model.tiny import make_tiny_qwen2
from twinkle.sampler import Sampler, TorchSampler, vLLMSampler

ROUNDS = 7
PROMPTS: Any = [{"input_ids": [5 + i % 60, 6, 7, 8]} for i in range(256)]
TOKENS = 48
LIMIT = 1.4


def measure() -> list[Figure]:
    """The figures of both engines; minutes."""
    with tempfile.TemporaryDirectory() as folder:
        qwen2 = make_tiny_qwen2(Path(folder) / "qwen2", hidden_size=256, layers=4)
        return [
            _two_beside_one("TorchSampler", lambda mesh, group: TorchSampler(qwen2, mesh, group)),
            _two_beside_one("vLLMSampler", lambda mesh, group: vLLMSampler(qwen2, mesh, group, max_adapters=0)),
        ]


def _two_beside_one(name: str, make: Callable[[DeviceMesh, str], Sampler]) -> Figure:
    groups = [DeviceGroup("one", 1, "cpu", cpus_per_rank=0), DeviceGroup("two", 2, "cpu", cpus_per_rank=0)]
    twinkle.initialize("ray", groups)
    try:
        one = make(DeviceMesh.from_sizes(dp_size=1), "one")
        two = make(DeviceMesh.from_sizes(dp_size=2), "two")
        load, pairs = os.getloadavg()[0], []
        for number in range(ROUNDS + 1):  # the first round warms up
            order = (two, one) if number % 2 else (one, two)
            speeds = {sampler is two: _tokens_per_s(sampler, number) for sampler in order}
            pairs.append((speeds[True], speeds[False]))
        _compare(one, two)
    finally:
        twinkle.initialize("local")
    ours, peer = (list(side) for side in zip(*pairs[1:], strict=True))
    what = f"{name}: two replicas beside one, {len(PROMPTS)} prompts, {os.cpu_count()} cores, load {load:.1f} before"
    return times_at_least(what, ours, peer, LIMIT, "tokens/s", more)


def _sample(sampler: Sampler, seed: int) -> list[list[int]]:
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, seed=seed)
    return [sequence.tokens for sequence in sampler.sample(PROMPTS, params).sequences]


def _tokens_per_s(sampler: Sampler, seed: int) -> float:
    began = time.perf_counter()
    tokens = _sample(sampler, seed)
    seconds = time.perf_counter() - began
    assert [len(each) for each in tokens] == [TOKENS] * len(PROMPTS)
    return TOKENS * len(PROMPTS) / seconds


def _compare(one: Sampler, two: Sampler) -> None:
    """The same tokens but where a random number falls within rounding of a boundary: that turns few responses."""
    pairs = zip(_sample(one, 99), _sample(two, 99), strict=True)
    same = sum(ours == theirs for ours, theirs in pairs)
    assert same >= 0.9 * len(PROMPTS), f"{same} of {len(PROMPTS)} responses of two replicas are those of one"
