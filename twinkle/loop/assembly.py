"""From a configuration to the parts of a run; what needs an end is put on the caller's stack."""

import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from transfer_queue import GRPOSampler, TransferQueueController
from transfer_queue.info_file import published
from transfer_queue.status import Progress
from twinkle.config import TrainConfig
from twinkle.data import PromptSource
from twinkle.data.check import check_prompts
from twinkle.data_format import SamplingParams
from twinkle.errors import CheckpointError
from twinkle.loop.base_model import base_model
from twinkle.loop.checkpoint import Boundary, Checkpoints
from twinkle.loop.evaluation import Evaluation
from twinkle.loop.plan import model_size, plan_lines
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.records import Records
from twinkle.loop.reward_worker import RewardWorker
from twinkle.loop.rollout import PromptFeeder, RolloutWorker
from twinkle.loop.run_folder import QUEUE, RunFolder
from twinkle.loop.stop import StopSignals
from twinkle.loop.sync import SyncLoop
from twinkle.loop.trainer import Trainer
from twinkle.loop.weight_sync import PolicySampler, Version
from twinkle.metrics import TrainingMetrics, served
from twinkle.model.attention import FLOAT64
from twinkle.model.config import ModelConfig
from twinkle.model.loading import attention_of
from twinkle.model.policy import Policy
from twinkle.rl.reward import Reward
from twinkle.sampler import TorchSampler
from twinkle.sampler.config import SamplerConfig

TASKS = ("rollout", "reward", "train")
TOLERANCE = {"float32": 1e-4}
TOLERANCE_OF_NARROW_TYPES = 0.2


@dataclass
class Assembly:
    """The parts of one run, ready to move.

    Attributes:
        boundary: where the run stands: step 0, or its newest checkpoint.
        plan: label and value of what is about to be trained.
        began: ``time.perf_counter()`` when the parts began to be made.
    """

    boundary: Boundary
    policy: Policy
    loop: SyncLoop
    evaluation: Evaluation
    checkpoints: Checkpoints
    records: Records
    metrics: TrainingMetrics
    plan: list[tuple[str, str]]
    began: float

    def assert_queue_empty(self) -> None:
        """Raise CheckpointError unless every row that was put has been through all its tasks."""
        alive = self.loop.trainer.client.stats().partitions
        if alive:
            raise CheckpointError(
                f"The queue still holds partitions {alive} at a checkpoint between two steps: it must be empty."
            )


def assemble(
    config: TrainConfig, run: RunFolder, source: PromptSource, reward: Reward, stop: StopSignals, stack: ExitStack
) -> Assembly:
    """Make every part of the run in ``run`` and put it where its newest checkpoint was, if there is one."""
    began = time.perf_counter()
    # transformers asks torch.fx whether it is being traced, and torch.fx answers with a warning to everybody
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    if config.infra.threads:
        torch.set_num_threads(config.infra.threads)
    controller = stack.enter_context(_start_queue(config))
    stack.enter_context(published(run / QUEUE, controller.get_info()))
    clients = {name: TimedClient(name, controller.get_info()) for name in ("feeder", *TASKS)}
    for client in clients.values():
        stack.callback(client.close)
    metrics = _serve_metrics(config, controller.get_info(), run.lineage, stack)
    folder = base_model(config.model, run.path)
    sampler = stack.enter_context(_sampler(folder, config.model))
    check_prompts(source.known_prompts(), sampler.template, sampler.positions, config.sampler.max_tokens)
    policy = Policy(folder, config.model, config.optim)
    checkpoints = Checkpoints(run / "checkpoints", kept=config.loop.checkpoints_kept)
    boundary = _restore(checkpoints, policy)
    records = Records(run.path, config.metrics, asdict(config), resumed_step=boundary.step)
    stack.callback(records.close)
    loop = _make_loop(config, run, policy, sampler, source, reward, clients, stop)
    evaluation = Evaluation(
        loop.rollout,
        reward,
        source.held_out(),
        run / "evals.jsonl",
        config.run.seed,
        keep_through_step=boundary.step,
    )
    stack.callback(evaluation.close)
    metrics.progress.update(step=boundary.step, version=str(Version(run.lineage, boundary.step)))
    if boundary.step:
        metrics.progress.update(checkpoint_step=boundary.step)
    size = model_size(config, parameters=policy.num_parameters, trainable=policy.num_trainable)
    plan = plan_lines(config, model=size, run_folder=str(run.path))
    return Assembly(boundary, policy, loop, evaluation, checkpoints, records, metrics, plan, began)


def _sampler(folder: Path, config: ModelConfig) -> TorchSampler:
    """A sampler that attends as the trainer does, so that both get the same log-probs."""
    exact = attention_of(config) == FLOAT64
    return TorchSampler(folder, device=config.device, dtype=config.dtype, exact_attention=exact)


def _start_queue(config: TrainConfig) -> TransferQueueController:
    loop, queue = config.loop, config.queue
    return TransferQueueController.start(
        global_batch_size=loop.prompts_per_step,
        num_global_batch=1,
        num_n_samples=loop.samples_per_prompt,
        task_samplers={"train": GRPOSampler(num_n_samples=loop.samples_per_prompt)},
        tasks=TASKS,
        capacity_bytes=queue.capacity_bytes,
        storage=queue.storage,
        shm_dir=queue.shm_dir,
    )


def _serve_metrics(config: TrainConfig, queue: dict[str, Any], lineage: int, stack: ExitStack) -> TrainingMetrics:
    registry, progress = CollectorRegistry(), Progress()
    progress.update(lineage=lineage)
    if config.metrics.port:
        endpoint = served(config.metrics.host, config.metrics.port, queue, registry=registry, progress=progress)
        stack.enter_context(endpoint)
    return TrainingMetrics(registry, progress)


def _restore(checkpoints: Checkpoints, policy: Policy) -> Boundary:
    found = checkpoints.newest()
    if found is None:
        return Boundary.now(0, 0)
    boundary, state, _ = found
    policy.load_state_dict(state)
    boundary.restore_rng()
    return boundary


def _make_loop(
    config: TrainConfig,
    run: RunFolder,
    policy: Policy,
    sampler: TorchSampler,
    source: PromptSource,
    reward: Reward,
    clients: dict[str, TimedClient],
    stop: StopSignals,
) -> SyncLoop:
    loop, queue, n = config.loop, config.queue, config.loop.samples_per_prompt
    usual = TOLERANCE.get(config.model.dtype, TOLERANCE_OF_NARROW_TYPES)
    tolerance = usual if loop.logp_tolerance is None else loop.logp_tolerance
    return SyncLoop(
        feeder=PromptFeeder(clients["feeder"], source, n, config.run.seed),
        rollout=RolloutWorker(clients["rollout"], PolicySampler(sampler), sampling_params(config.sampler), n, queue),
        reward=RewardWorker(clients["reward"], reward, queue),
        trainer=Trainer(
            clients["train"], policy, config.algo, config.sampler.temperature, n, config.mesh.trainer_dp, tolerance,
            config.run.seed, loop.samples_every, loop.samples_kept, queue,
        ),
        clients=list(clients.values()),
        prompts_per_step=loop.prompts_per_step,
        lineage=run.lineage,
        stop=stop,
    )  # fmt: skip


def sampling_params(config: SamplerConfig) -> SamplingParams:
    """What the rollout asks of its sampler; the seed comes with each prompt."""
    return SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        stop=list(config.stop) or None,
        stop_token_ids=list(config.stop_token_ids) or None,
        ignore_eos=config.ignore_eos,
    )
