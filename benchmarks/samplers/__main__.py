"""``make bench-samplers``: TorchSampler, vLLMSampler and device groups, to ``benchmarks/results/samplers``.

python -m benchmarks.samplers [torch | vllm | replicas | groups | sync ...]
"""

import sys
from collections.abc import Callable

from benchmarks.samplers import dispatch, replicas, torch_sampler, vllm_sampler, weight_sync
from benchmarks.table import Figure, run_parts

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "torch": torch_sampler.measure,
    "vllm": vllm_sampler.measure,
    "replicas": replicas.measure,
    "groups": dispatch.measure,
    "sync": weight_sync.measure,
}


def main(names: list[str]) -> int:
    """Measure, write, print; 1 when a figure was missed, 2 for a name that is none."""
    return run_parts("samplers", "Samplers and device groups", PARTS, names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
