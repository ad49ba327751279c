"""``make bench-samplers``: TorchSampler, vLLMSampler and device groups, to ``benchmarks/results/samplers``.

python -m benchmarks.samplers [torch | vllm | replicas | groups | sync ...]
"""

import sys
from collections.abc import Callable

from benchmarks.samplers import dispatch, replicas, torch_sampler, vllm_sampler, weight_sync
from benchmarks.table import Figure, write

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "torch": torch_sampler.measure,
    "vllm": vllm_sampler.measure,
    "replicas": replicas.measure,
    "groups": dispatch.measure,
    "sync": weight_sync.measure,
}


def main(names: list[str]) -> int:
    """Measure, write, print; 1 when a figure was missed, 2 for a name that is none."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
        return 2
    stem = "samplers-part" if names else "samplers"
    command = " ".join(["python -m benchmarks.samplers", *names]) if names else "make bench-samplers"
    figures: list[Figure] = []
    for name in names or PARTS:
        print(f"{name} ...", flush=True)
        figures += PARTS[name]()
        written = write(stem, "Samplers and device groups", command, figures)
    print(written.read_text())
    return int(not all(figure.reached for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
