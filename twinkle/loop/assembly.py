"""From a configuration to the parts of a run; what needs an end is put on the caller's stack."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from transfer_queue.info_file import published
from twinkle.config import TrainConfig
from twinkle.data import PromptSource
from twinkle.data.check import answers_out_of_reach, check_prompts
from twinkle.errors import CheckpointError
from twinkle.infra import DeviceMesh
from twinkle.loop.attached import AttachedSamplers
from twinkle.loop.base_model import base_model, positions_of
from twinkle.loop.checkpoint import Boundary, Checkpoints
from twinkle.loop.evaluation import Evaluation
from twinkle.loop.joining import joining
from twinkle.loop.parts import RolloutReplica, TrainerRank, prepare_process
from twinkle.loop.payload import Version
from twinkle.loop.plan import model_size, plan_lines
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.records import Records
from twinkle.loop.reward_worker import RewardRank, RewardWorker
from twinkle.loop.rollout import PromptFeeder, Samplers
from twinkle.loop.run_folder import CHECKPOINTS, QUEUE, WEIGHTS, RunFolder
from twinkle.loop.run_queue import RunQueue
from twinkle.loop.stop import StopSignals
from twinkle.loop.sync import SyncLoop
from twinkle.loop.trainer import Trainer
from twinkle.loop.weight_board import WeightBoard, WeightFile
from twinkle.loop.weight_sync import WeightSync
from twinkle.metrics import TrainingMetrics
from twinkle.rl.reward import Reward
from twinkle.template import Template, make_template

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
    loop: SyncLoop
    evaluation: Evaluation
    checkpoints: Checkpoints
    records: Records
    metrics: TrainingMetrics
    plan: list[tuple[str, str]]
    began: float

    def assert_queue_empty(self) -> None:
        """Raise CheckpointError unless every row that was put has been through all its tasks."""
        alive = self.loop.feeder.client.stats().partitions
        if alive:
            raise CheckpointError(
                f"The queue still holds partitions {alive} at a checkpoint between two steps: it must be empty."
            )


def assemble(
    config: TrainConfig,
    run: RunFolder,
    source: PromptSource,
    reward: Reward,
    queue: RunQueue,
    stop: StopSignals,
    stack: ExitStack,
) -> Assembly:
    """Make every other part of the run in ``run`` and put it where its newest checkpoint was, if there is one."""
    began, metrics = time.perf_counter(), queue.metrics
    prepare_process(config)
    if config.infra.mode == "ray":
        _set_ranks_apart(config)
    folder = base_model(config.model, run.path, config.hub)
    board = _open_board(config, run, stack) if config.sampler.attached else None
    if board is not None:
        stack.enter_context(published(run / QUEUE, joining(queue.info, config, folder, board)))
    loop = _make_loop(config, run, folder, source, reward, queue.info, board, stop, stack)
    prompts, template, max_tokens = source.known_prompts(), _template(config, folder), config.sampler.max_tokens
    check_prompts(prompts, template, loop.rollout.positions, max_tokens)
    checkpoints = Checkpoints(run / CHECKPOINTS, kept=config.loop.checkpoints_kept)
    boundary = _restore(checkpoints, loop.trainer)
    records = Records(run.path, config.metrics, asdict(config), resumed_step=boundary.step)
    stack.callback(records.close)
    asked, lines = source.held_out(), run / "evals.jsonl"
    evaluation = Evaluation(loop.rollout, reward, asked, lines, config.run.seed, keep_through_step=boundary.step)
    stack.callback(evaluation.close)
    metrics.progress.update(step=boundary.step, version=str(Version(run.lineage, boundary.step)))
    if boundary.step:
        metrics.progress.update(checkpoint_step=boundary.step)
    parameters, trainable = loop.trainer.sizes
    size = model_size(config, parameters=parameters, trainable=trainable)
    plan = plan_lines(config, model=size, run_folder=str(run.path))
    if warning := answers_out_of_reach(prompts, template, max_tokens):
        plan.append(("warning", warning))
    if board is not None:
        plan.append(("samplers", f"twinkle-sampler queue.info={run / QUEUE}"))
    return Assembly(boundary, loop, evaluation, checkpoints, records, metrics, plan, began)


def _set_ranks_apart(config: TrainConfig) -> None:
    from twinkle.loop.on_ray import set_apart

    infra, groups = config.infra, config.device_groups()
    set_apart(groups, storage=config.queue.storage, address=infra.address, timeout_s=infra.timeout_s)


def _open_board(config: TrainConfig, run: RunFolder, stack: ExitStack) -> WeightBoard:
    """Where samplers outside the run find its weights: as far as its queue reaches."""
    if config.infra.mode == "ray" and config.queue.storage != "shm":
        from twinkle.loop.weight_actor import weights_on_ray

        return stack.enter_context(weights_on_ray())
    board = WeightFile(run / WEIGHTS)
    stack.callback(board.close)
    return board


def _template(config: TrainConfig, folder: Path) -> Template:
    return make_template(config.template.name, AutoTokenizer.from_pretrained(folder), **config.template.arguments())


def _restore(checkpoints: Checkpoints, trainer: Trainer) -> Boundary:
    found = checkpoints.newest()
    if found is None:
        return Boundary.now(0, 0)
    boundary, state, _ = found
    trainer.load_state_dict(state)
    boundary.restore_rng()
    return boundary


def _make_loop(
    config: TrainConfig,
    run: RunFolder,
    folder: Path,
    source: PromptSource,
    reward: Reward,
    queue: dict[str, Any],
    board: WeightBoard | None,
    stop: StopSignals,
    stack: ExitStack,
) -> SyncLoop:
    loop, client = config.loop, TimedClient("feeder", queue)
    stack.callback(client.close)
    rewards, trainer = _make_workers(config, folder, reward, queue, stack)
    rollout: Samplers
    if board is None:
        rollout = _make_rollout(config, folder, source, queue)
    else:
        rollout = AttachedSamplers(
            TimedClient("waiting", queue), board, loop, config.queue, positions_of(folder), run / QUEUE
        )
    stack.callback(rollout.close)
    usual = TOLERANCE.get(config.model.dtype, TOLERANCE_OF_NARROW_TYPES)
    tolerance = usual if loop.logp_tolerance is None else loop.logp_tolerance
    return SyncLoop(
        feeder=PromptFeeder(client, source, loop.samples_per_prompt, config.run.seed),
        rollout=rollout,
        reward=rewards,
        trainer=trainer,
        sync=WeightSync(trainer, rollout, tolerance, probe_every=loop.probe_every),
        algo=config.algo,
        prompts_per_step=loop.prompts_per_step,
        seed=config.run.seed,
        lineage=run.lineage,
        stop=stop,
    )


def _make_rollout(config: TrainConfig, folder: Path, source: PromptSource, queue: dict[str, Any]) -> RolloutReplica:
    """In this process, or on the device group ``sampler``."""
    mesh, probe_prompt = config.mesh, source.held_out()[0].prompt
    samplers = DeviceMesh.from_sizes(dp_size=mesh.sampler_dp, tp_size=mesh.sampler_tp, pp_size=mesh.sampler_pp)
    return RolloutReplica(config, folder, queue, probe_prompt, samplers, _group(config, "sampler"))


def _make_workers(
    config: TrainConfig, folder: Path, reward: Reward, queue: dict[str, Any], stack: ExitStack
) -> tuple[RewardWorker, TrainerRank]:
    """In this process, or on the device groups of TrainConfig.device_groups."""
    rewards: RewardWorker
    if config.mesh.reward_ranks:
        rewards = RewardRank(config, queue, remote_group="reward")
    else:
        rewards = RewardWorker(TimedClient("reward", queue), reward, config.queue)
    stack.callback(rewards.close)
    trainer = TrainerRank(config, folder, queue, remote_group=_group(config, "trainer"))
    stack.callback(trainer.close)
    return rewards, trainer


def _group(config: TrainConfig, name: str) -> str | None:
    return name if config.infra.mode == "ray" else None
