"""The synchronous loop: one partition of the queue at a time goes through rollout, reward and train."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from twinkle.loop.checkpoint import Boundary
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.reward_worker import RewardWorker
from twinkle.loop.rollout import PromptFeeder, RolloutWorker
from twinkle.loop.stop import StopSignals
from twinkle.loop.trainer import Trainer
from twinkle.loop.weight_sync import Version


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
    """The workers of one process in turn. Nothing but the queue couples them.

    Until the optimizer moves, a stop signal may end a step at any point: parameters are still those of the boundary
    before it. From there until the step is recorded, signals wait.
    """

    feeder: PromptFeeder
    rollout: RolloutWorker
    reward: RewardWorker
    trainer: Trainer
    clients: list[TimedClient]
    prompts_per_step: int
    lineage: int
    stop: StopSignals
    intact: bool = True  # whether parameters and files are those of a step boundary

    def publish(self, step: int) -> None:
        """Hand the policy's weights to the sampler as version (lineage, step)."""
        payload = self.trainer.export(Version(self.lineage, step))
        self.trainer.published.publish(payload, self.rollout.policy)

    def step(self, boundary: Boundary, finish: Callable[[StepDone], None]) -> StepDone:
        """Do the step behind ``boundary``; ``finish`` records it while signals still wait."""
        began, waited = time.perf_counter(), self._queue_seconds()
        step = boundary.step + 1
        rows = self.prompts_per_step * self.feeder.samples_per_prompt
        cursor = self.feeder.feed(step, boundary.cursor, self.prompts_per_step)
        tokens = self.rollout.work(step, rows)
        self.reward.work(step, rows)
        prepared = self.trainer.prepare(step, rows)
        with ExitStack() as change:
            figures = self.trainer.train(prepared, before_change=lambda: change.enter_context(self._changing()))
            self.publish(step)
            seconds = time.perf_counter() - began
            row = {
                "step": step,
                **figures,
                "tokens_per_s": tokens / seconds,
                "seconds": seconds,
                "queue_seconds": self._queue_seconds() - waited,
                "version": str(Version(self.lineage, step)),
            }
            done = StepDone(Boundary.now(step, cursor), row, tokens, prepared.samples)
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
        return sum(client.seconds for client in self.clients)
