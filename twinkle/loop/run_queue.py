"""The queue of a run and the endpoint beside it: there before the model is, so that others see where the run stands."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from transfer_queue import TransferQueueController
from transfer_queue.info_file import published
from transfer_queue.status import Progress
from twinkle.config import TrainConfig
from twinkle.errors import ConfigError
from twinkle.extras import RAY_EXTRA, require
from twinkle.loop.config import TASKS
from twinkle.loop.run_folder import QUEUE, STARTED, RunFolder, read_json
from twinkle.loop.stop import StopSignals
from twinkle.metrics import TrainingMetrics, served


@dataclass(frozen=True)
class RunQueue:
    """``info`` is the controller_info; ``metrics`` are the run's figures, which the endpoint serves."""

    info: dict[str, Any]
    metrics: TrainingMetrics


def open_queue(config: TrainConfig, run: RunFolder, stop: StopSignals, stack: ExitStack) -> RunQueue:
    """Start the queue, with infra=ray on Ray, and serve its pages at ``metrics.port`` until ``stack`` ends."""
    options = stack.enter_context(_options(config, run))
    if config.infra.mode == "local":
        info = stack.enter_context(TransferQueueController.start(**options)).get_info()
    else:
        require("ray", "infra=ray", RAY_EXTRA)
        from twinkle.loop.on_ray import connected, queue_on_ray

        stack.enter_context(connected(address=config.infra.address, timeout_s=config.infra.timeout_s))
        stop.take()  # Ray has put a handler of its own in the place of ours
        info = stack.enter_context(queue_on_ray(options))
    if not config.sampler.attached:  # whose samplers are told of the queue when the model is there
        stack.enter_context(published(run / QUEUE, info))
    registry, progress, metrics = CollectorRegistry(), Progress(), config.metrics
    progress.update(attempt=run.lineage + 1, lineage=run.lineage)
    if metrics.port:
        pages = served(
            metrics.host, metrics.port, info, registry=registry, progress=progress, linger_s=metrics.linger_s
        )
        stack.enter_context(pages)
    return RunQueue(info, TrainingMetrics(registry, progress))


@contextmanager
def _options(config: TrainConfig, run: RunFolder) -> Iterator[dict[str, Any]]:
    loop, queue = config.loop, config.queue
    with _journal(config, run) as journal:
        yield {
            "global_batch_size": loop.prompts_per_step,
            "num_global_batch": queue.num_global_batch,
            "num_n_samples": loop.samples_per_prompt,
            **queue.samplers(loop.samples_per_prompt),
            "tasks": TASKS,
            "capacity_bytes": queue.capacity_bytes,
            "storage": queue.storage,
            "shm_dir": queue.shm_dir,
            "journal_dir": journal,
        }


@contextmanager
def _journal(config: TrainConfig, run: RunFolder) -> Iterator[Path | None]:
    """An empty folder for the journal of this attempt, which goes with it.

    What an earlier attempt left is removed: its rows belong to a history that the checkpoint has not.
    """
    if config.queue.journal is None:
        yield None
        return
    root = Path(config.queue.journal)
    mine = root / read_json(run / STARTED)["id"]
    try:
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigError(
            f"queue.journal={str(root)!r} cannot be written ({error.strerror}): name a folder of yours."
        ) from error
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
