"""vLLM as it is, in a process of its own: ``python -m benchmarks.samplers.bare_vllm FOLDER FD``.

Over the socket come (prompts, samples, max_tokens, seed or None, logprobs or None); the answer is (seconds, tokens) of
one LLM.generate.
"""

import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_num_seqs": 256,
    "gpu_memory_utilization": 0.05,
    "kv_cache_memory_bytes": 256 * 2**20,
}
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class BareVLLM:
    """The process, from outside. ``environment`` comes over the settings that are fastest here."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.samplers.bare_vllm", str(folder), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | ENVIRONMENT | (environment or {}),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        self._connection.recv()

    def generate(
        self, prompts: list[list[int]], samples: int, max_tokens: int, seed: int | None, logprobs: int | None
    ) -> tuple[float, int]:
        """Seconds and tokens of one LLM.generate."""
        self._connection.send((prompts, samples, max_tokens, seed, logprobs))
        seconds, tokens = self._connection.recv()
        return float(seconds), int(tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connection.close()
        self._process.wait(60)


def main() -> None:
    """Serve until the other end closes."""
    from vllm import LLM, SamplingParams

    folder, connection = sys.argv[1], Connection(int(sys.argv[2]))
    engine: Any = LLM(model=folder, **ENGINE_ARGS)
    connection.send("ready")
    while True:
        try:
            prompts, samples, max_tokens, seed, logprobs = connection.recv()
        except EOFError:
            os._exit(0)
        params = SamplingParams(
            n=samples, max_tokens=max_tokens, seed=seed, logprobs=logprobs, ignore_eos=True, temperature=1.0
        )
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        began = time.perf_counter()
        outputs = engine.generate(inputs, params, use_tqdm=False)
        seconds = time.perf_counter() - began
        connection.send((seconds, sum(len(one.token_ids) for output in outputs for one in output.outputs)))


if __name__ == "__main__":
    main()
