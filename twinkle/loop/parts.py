"""The workers of a run, made from its configuration: in this process, or one on each rank of a device group."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from transfer_queue import TransferQueueClient
from twinkle.attach_config import AttachConfig
from twinkle.config import TrainConfig
from twinkle.data.base import Prompt
from twinkle.data_format import SamplingParams
from twinkle.infra import DeviceMesh, current_rank, current_runtime, remote_class, torch_environment
from twinkle.loop.base_model import base_model_here
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.rollout import RolloutWorker
from twinkle.loop.serving import RolloutServer
from twinkle.loop.trainer import Trainer
from twinkle.loop.weight_board import board_at
from twinkle.loop.weight_sync import PolicySampler
from twinkle.model.data_parallel import DataParallel
from twinkle.model.policy import Policy
from twinkle.sampler.base import Sampler
from twinkle.sampler.build import make_sampler
from twinkle.sampler.config import SamplerConfig


def prepare_process(config: TrainConfig) -> None:
    """Settings of torch that hold for a whole process."""
    # transformers asks torch.fx whether it is being traced, and torch.fx answers with a warning to everybody
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    if config.infra.threads:
        torch.set_num_threads(config.infra.threads)


@remote_class(actors="replica")
class RolloutReplica(RolloutWorker):
    """A rollout worker with a sampler of its own."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        queue: Mapping[str, Any],
        probe_prompt: Prompt,
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
    ):
        sampler = _sampler(config, folder, device_mesh, remote_group)
        super().__init__(
            client=TimedClient(f"rollout-{current_rank().data_rank}", queue),
            policy=PolicySampler(sampler),
            params=sampling_params(config.sampler),
            samples_per_prompt=config.loop.samples_per_prompt,
            queue=config.queue,
            probe_prompt=probe_prompt,
        )

    def close(self) -> None:
        """End the sampler, and leave the queue."""
        self.policy.sampler.close()
        self.client.close()


@remote_class(actors="replica")
class ServingReplica(RolloutServer):
    """A server of prompts with a sampler of its own; ``board`` is the address of the weights, None: the model's own."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        queue: Mapping[str, Any],
        board: Mapping[str, str] | None,
        attach: AttachConfig,
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
    ):
        sampler = _sampler(config, folder, device_mesh, remote_group)
        super().__init__(
            client=TransferQueueClient(f"sampler-{os.getpid()}-{current_rank().data_rank}", queue),
            policy=PolicySampler(sampler),
            params=sampling_params(config.sampler),
            samples_per_prompt=config.loop.samples_per_prompt,
            board=None if board is None else board_at(board),
            attach=attach,
        )


@remote_class
class TrainerRank(Trainer):
    """A trainer with a policy of its own: all data-parallel ranks in turns, or one of several that meet."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        queue: Mapping[str, Any],
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
    ):
        prepare_process(config)
        dp, model, self._parallel = config.mesh.trainer_dp, config.model, None
        if remote_group is not None and dp > 1:
            self._parallel = DataParallel.meet(torch_environment(), current_runtime().group(remote_group).device_type)
        if remote_group is not None:
            model = replace(model, device=current_runtime().group(remote_group).device_type)
        mine = current_rank().data_rank
        super().__init__(
            client=TimedClient(f"train-{mine}", queue),
            policy=Policy(base_model_here(config.model, folder, config.hub), model, config.optim, self._parallel),
            algo=config.algo,
            temperature=config.sampler.temperature,
            dp_size=dp,
            ranks=range(mine, mine + 1) if self._parallel else range(dp),
            samples_every=config.loop.samples_every,
            samples_kept=config.loop.samples_kept,
            queue=config.queue,
        )

    def close(self) -> None:
        """Leave the queue, and the other ranks."""
        self.client.close()
        if self._parallel is not None:
            self._parallel.close()


def sampling_params(config: SamplerConfig) -> SamplingParams:
    """What the rollout asks of its sampler; the seed comes with each prompt."""
    return SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        stop=list(config.stop) or None,
        stop_token_ids=list(config.stop_token_ids) or None,
        ignore_eos=config.ignore_eos,
    )


def _sampler(config: TrainConfig, folder: Path, mesh: DeviceMesh | None, remote_group: str | None) -> Sampler:
    prepare_process(config)
    sampler = make_sampler(
        config.sampler, config.model, base_model_here(config.model, folder, config.hub), mesh, remote_group
    )
    sampler.set_template(config.template.name, **config.template.arguments())
    return sampler
