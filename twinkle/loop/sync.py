"""The synchronous loop: one partition of the queue at a time goes through rollout, reward and train."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from twinkle.loop.checkpoint import Boundary
from twinkle.loop.payload import Version
from twinkle.loop.reward_worker import RewardWorker
from twinkle.loop.rollout import PromptFeeder, Samplers
from twinkle.loop.step_rows import StepRows
from twinkle.loop.stop import StopSignals
from twinkle.loop.trainer import Trainer
from twinkle.loop.weight_sync import SyncFigures, WeightSync
from twinkle.rl.config import AlgoConfig


@dataclass(frozen=True)
class StepDone:
    """What one step came to.

    Attributes:
        boundary: the state behind it, from which a checkpoint is made.
        row: its line in ``metrics.jsonl``.
        tokens: tokens sampled.
        samples: the rows that it trained on, for ``samples.jsonl``.
    """

    boundary: Boundary
    row: dict[str, Any]
    tokens: int
    samples: list[dict[str, Any]]


@dataclass
class SyncLoop:
    """The workers of a run in turn, in this process or on device groups. Nothing but the queue couples them.

    Until the optimizer moves, a stop signal may end a step at any point: parameters are still those of the boundary
    before it. From there until the step is recorded, signals wait.

    Attributes:
        seed: of the negative controls.
    """

    feeder: PromptFeeder
    rollout: Samplers
    reward: RewardWorker
    trainer: Trainer
    sync: WeightSync
    algo: AlgoConfig
    prompts_per_step: int
    seed: int
    lineage: int
    stop: StopSignals
    intact: bool = True  # whether parameters and files are those of a step boundary
    _waited: float = 0.0

    def publish(self, step: int) -> SyncFigures:
        """Hand the policy's weights to the samplers as version (lineage, step)."""
        return self.sync.publish(Version(self.lineage, step))

    def step(self, boundary: Boundary, finish: Callable[[StepDone], None]) -> StepDone:
        """Do the step behind ``boundary``; ``finish`` records it while signals still wait."""
        began, step, n = time.perf_counter(), boundary.step + 1, self.feeder.samples_per_prompt
        count = self.prompts_per_step * n
        cursor = self.feeder.feed(step, boundary.cursor, self.prompts_per_step)
        self.rollout.work(step, self.prompts_per_step)
        self.reward.work(step, count)
        rows = StepRows(self.trainer.prepare(step, count))
        rows.check(self.sync.published, self.sync.tolerance, Version(self.lineage, boundary.step))
        self.trainer.compute(rows.advantages(self.algo, n, seed=self.seed, step=step))
        with self._changing():
            stats = vars(self.trainer.update())
            synced = self.publish(step)
            seconds = time.perf_counter() - began
            row = {
                "step": step,
                **rows.figures(step),
                **{name: value for name, value in stats.items() if name != "tokens"},
                **asdict(synced),
                "tokens_per_s": rows.tokens / seconds,
                "seconds": seconds,
                "queue_seconds": self._queue_seconds(),
                "version": str(Version(self.lineage, step)),
            }
            done = StepDone(Boundary.now(step, cursor), row, rows.tokens, rows.samples)
            finish(done)
        return done

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """While parameters, sampler and files move from one boundary to the next: no signal, and not intact."""
        with self.stop.shielded():
            self.intact = False
            yield
            self.intact = True

    def _queue_seconds(self) -> float:
        """Wall time inside calls of the queue since this was asked last."""
        clocks = (self.rollout, self.reward, self.trainer)
        before, self._waited = self._waited, self.feeder.client.seconds + sum(each.queue_seconds for each in clocks)
        return self._waited - before
