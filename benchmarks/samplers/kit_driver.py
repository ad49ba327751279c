"""twinkle-kit's TorchSampler as a process: model folder, prompts, tokens and rounds in, [tokens, seconds] a round out.

Runs in `.venv-kit`, where the package `twinkle` is twinkle-kit's; imports nothing of ours.
"""

import json
import sys
import time

import torch

from twinkle.data_format.sampling import SamplingParams
from twinkle.sampler.torch_sampler import TorchSampler


def main() -> None:
    """Read the order from standard input, print the answer as the last line."""
    order = json.load(sys.stdin)
    sampler = TorchSampler(order["folder"], torch_dtype=torch.float32)
    # As it has no way to ignore EOS, it is kept from ending responses early by generate's own setting.
    sampler.model.generation_config.min_new_tokens = order["tokens"]
    params = SamplingParams(max_tokens=order["tokens"], temperature=1.0)
    inputs = [{"input_ids": prompt} for prompt in order["prompts"]]
    answer = []
    for _ in range(order["rounds"]):
        began = time.perf_counter()
        response = sampler.sample(inputs, params)
        seconds = time.perf_counter() - began
        answer.append((sum(len(sequence.tokens) for sequence in response.sequences), seconds))
    print(json.dumps(answer[1:]))


if __name__ == "__main__":
    main()
