"""The figures of a run, and the endpoint that serves them beside the queue's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from transfer_queue.errors import ConfigurationError
from transfer_queue.http import Endpoint
from transfer_queue.pages import Pages
from transfer_queue.status import Progress
from twinkle.errors import ConfigError


class TrainingMetrics:
    """The trainer's figures: for Prometheus, under standard names and units, and as ``progress`` for /v1/status."""

    def __init__(self, registry: CollectorRegistry, progress: Progress | None = None):
        self.progress = progress or Progress()
        self._step = Gauge("twinkle_step", "Optimizer steps done.", registry=registry)
        self._reward = Gauge("twinkle_reward_mean", "Mean reward of the newest step.", registry=registry)
        self._eval = Gauge("twinkle_eval_reward_mean", "Mean reward on held-out prompts.", registry=registry)
        self._loss = Gauge("twinkle_loss", "Loss of the newest step.", registry=registry)
        self._logp = Gauge(
            "twinkle_logp_diff_max",
            "Largest gap of a sampler's log-prob to the trainer's, newest step.",
            registry=registry,
        )
        self._tokens = Counter("twinkle_sampled_tokens_total", "Tokens sampled.", registry=registry)
        self._samples = Counter("twinkle_trained_samples_total", "Samples trained on.", registry=registry)
        self._seconds = Histogram("twinkle_step_duration_seconds", "Wall time of a step.", registry=registry)
        self._queue = Histogram(
            "twinkle_step_queue_duration_seconds",
            "Time inside queue calls of a step.",
            buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0),
            registry=registry,
        )

        self._sync = Histogram(
            "twinkle_weight_sync_duration_seconds",
            "Time from the trainer's new weights to the last sampler that holds them.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0),
            registry=registry,
        )

    def step(self, row: dict[str, Any], *, tokens: int, samples: int) -> None:
        """Take one step's figures."""
        self.progress.update(step=row["step"], reward=row["reward_mean"], version=row["version"])
        self._step.set(row["step"])
        self._reward.set(row["reward_mean"])
        self._loss.set(row["loss"])
        self._logp.set(row["logp_diff_max"])
        self._tokens.inc(tokens)
        self._samples.inc(samples)
        self._seconds.observe(row["seconds"])
        self._queue.observe(row["queue_seconds"])
        self._sync.observe(row["sync_seconds"])

    def evaluated(self, reward: float) -> None:
        """Take the mean reward on held-out prompts."""
        self.progress.update(eval_reward=reward)
        self._eval.set(reward)


@contextmanager
def served(
    host: str,
    port: int,
    controller_info: Mapping[str, Any],
    *,
    registry: CollectorRegistry | None = None,
    progress: Progress | None = None,
    linger_s: float = 0.0,
) -> Iterator[Endpoint]:
    """The queue's pages and these figures at ``metrics.host`` and ``metrics.port`` while the block runs.

    When it ends without an error they stay until /v1/status told the last figures, at most ``linger_s``.

    Raises:
        ConfigError: nobody can listen there.
    """
    with Pages(controller_info, registry=registry, progress=progress) as pages:
        try:
            endpoint = Endpoint(host, port, pages)
        except ConfigurationError as error:
            raise ConfigError(f"metrics.port={port}: {error}, or 0 to switch the endpoint off.") from error
        with endpoint:
            yield endpoint
            pages.await_reader(linger_s)
