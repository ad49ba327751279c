"""twinkle-kit's TorchSampler as a process: the first line in is model folder, prompts and tokens; [tokens, seconds] of
one round come out for it and for each line after it.

Runs in `.venv-kit`, where the package `twinkle` is twinkle-kit's; imports nothing of ours.
"""

import json
import sys
import time

import torch

from twinkle.data_format.sampling import SamplingParams
from twinkle.sampler.torch_sampler import TorchSampler


def main() -> None:
    """Read the order, then do a round for each line; answers go to the standard output that the process began with."""
    answers, sys.stdout = sys.stdout, sys.stderr
    order = json.loads(sys.stdin.readline())
    sampler = TorchSampler(order["folder"], torch_dtype=torch.float32)
    # As it has no way to ignore EOS, it is kept from ending responses early by generate's own setting.
    sampler.model.generation_config.min_new_tokens = order["tokens"]
    params = SamplingParams(max_tokens=order["tokens"], temperature=1.0)
    inputs = [{"input_ids": prompt} for prompt in order["prompts"]]
    while True:
        began = time.perf_counter()
        response = sampler.sample(inputs, params)
        seconds = time.perf_counter() - began
        answer = (sum(len(sequence.tokens) for sequence in response.sequences), seconds)
        print(json.dumps(answer), file=answers, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main()
