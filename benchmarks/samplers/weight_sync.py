"""What a weight sync costs, from the trainer's parameters to a sampler that has loaded them:
`python -m benchmarks.samplers.weight_sync`.

An adapter of 50 MB and a tiny one, in one process and from a trainer rank to a sampler replica on Ray, by the parts of
the loop. Digests (made once in one process, at both ends on Ray) and the probe are timed apart.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.table import Figure, median_at_most, shown
from transfer_queue import TransferQueueController
from twinkle.config import TrainConfig
from twinkle.loop.config import GroupConfig, InfraConfig
from twinkle.loop.on_ray import connected, queue_on_ray, set_apart
from twinkle.loop.parts import RolloutReplica, TrainerRank
from twinkle.loop.weight_sync import SyncFigures, Version, WeightSync
from twinkle.model.config import LoraSettings, ModelConfig
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2
from twinkle.sampler.config import SamplerConfig

ROUNDS = 15
FIRST = 10
"""Syncs before those that count: by then Ray's store mostly gives memory that both processes have mapped already."""
HASH_LIMIT = 10.0
TOLERANCE = 1e-4
FREE = GroupConfig(cpus_per_rank=0)


def settings(folder: Path, mode: str, rank: int) -> TrainConfig:
    model = ModelConfig(id=str(folder), lora=LoraSettings(r=rank))
    short = SamplerConfig(max_tokens=8)  # the tiny model has 64 positions
    return TrainConfig(model=model, sampler=short, infra=InfraConfig(mode, threads=1, sampler=FREE, trainer=FREE))


@contextmanager
def syncing(config: TrainConfig) -> Iterator[WeightSync]:
    """A trainer and a sampler of the loop, on Ray or here."""
    options: dict[str, Any] = {"global_batch_size": 1, "num_n_samples": 2}
    folder, ray = Path(config.model.id), config.infra.mode == "ray"
    with ExitStack() as stack:
        if ray:
            stack.enter_context(connected(address=None, timeout_s=60.0))
            set_apart(config.device_groups(), storage="shm", address=None, timeout_s=60.0)
            queue = stack.enter_context(queue_on_ray(options))
        else:
            queue = stack.enter_context(TransferQueueController.start(**options)).get_info()
        rollout = RolloutReplica(config, folder, queue, "1234", remote_group="sampler" if ray else None)
        stack.callback(rollout.close)
        trainer = TrainerRank(config, folder, queue, remote_group="trainer" if ray else None)
        stack.callback(trainer.close)
        yield WeightSync(trainer, rollout, TOLERANCE)


def rounds(config: TrainConfig) -> tuple[float, list[SyncFigures]]:
    """Megabytes of the payload, and every sync after the first ones, which find their memory."""
    with syncing(config) as sync:
        payload = sync.source.export(Version(0, 0))
        megabytes = sum(tensor.nbytes for tensor in payload.tensors.values()) / 1e6
        return megabytes, [sync.publish(Version(0, step)) for step in range(FIRST + ROUNDS)][FIRST:]


def figures(folder: Path, mode: str, rank: int, *, limited: bool) -> list[Figure]:
    megabytes, found = rounds(settings(folder, mode, rank))
    what = f"weight sync of {megabytes:.3g} MB, {'on Ray' if mode == 'ray' else 'in process'}"
    share = [100 * each.sync_hash_seconds / each.sync_seconds for each in found]
    name = f"{what}: the digests"
    return [
        shown(what, [1e3 * each.sync_seconds for each in found], "ms"),
        median_at_most(name, share, HASH_LIMIT, "%") if limited else shown(name, share, "%"),
        shown(f"{what}: the probe behind it", [1e3 * each.probe_seconds for each in found], "ms"),
    ]


def measure() -> list[Figure]:
    """The figures."""
    found = []
    with tempfile.TemporaryDirectory() as at:
        small = make_tiny_opt(Path(at) / "small")
        large = make_tiny_qwen2(Path(at) / "large", hidden_size=512, layers=5)
        for mode in ("local", "ray"):
            found += figures(small, mode, 8, limited=False) + figures(large, mode, 256, limited=mode == "ray")
    return found


def main() -> None:
    for figure in measure():
        spread = f"{min(figure.values):.3g} - {max(figure.values):.3g}, n={len(figure.values)}"
        verdict = "" if figure.target == "-" else f"; {figure.target}: {'reached' if figure.reached else 'MISSED'}"
        print(f"{figure.name}: {figure.summary:.3g} {figure.unit} ({spread}){verdict}")


if __name__ == "__main__":
    main()
