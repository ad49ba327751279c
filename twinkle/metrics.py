"""The Prometheus endpoint of a run: /metrics, and /readyz that says whether the queue answers."""

import errno
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.registry import Collector

from twinkle.errors import ConfigError

StartResponse = Callable[..., Any]


class TrainingMetrics:
    """The trainer's figures, under standard names and units."""

    def __init__(self, registry: CollectorRegistry):
        self._step = Gauge("twinkle_step", "Optimizer steps done.", registry=registry)
        self._reward = Gauge("twinkle_reward_mean", "Mean reward of the newest step.", registry=registry)
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

    def step(self, row: dict[str, Any], *, tokens: int, samples: int) -> None:
        """Take one step's figures."""
        self._step.set(row["step"])
        self._reward.set(row["reward_mean"])
        self._loss.set(row["loss"])
        self._logp.set(row["logp_diff_max"])
        self._tokens.inc(tokens)
        self._samples.inc(samples)
        self._seconds.observe(row["seconds"])
        self._queue.observe(row["queue_seconds"])


class MetricsEndpoint:
    """Serves a registry over HTTP in a thread of its own until the block ends.

    Args:
        host, port: where to listen.
        ready: called for /readyz; returns None when the run can make progress, else the sentence that says why not.
        collectors: what to serve beside the registry's own figures.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        ready: Callable[[], str | None],
        collectors: Iterable[Collector] = (),
    ):
        for collector in collectors:
            registry.register(collector)
        self._ready = ready
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = make_server(host, port, self._serve, server_class=_Server, handler_class=_QuietHandler)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise ConfigError(
                f"metrics.port={port} on {host} {why}: choose another port, or 0 to switch the endpoint off."
            ) from error
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True, name="metrics"
        )

    def __enter__(self) -> "MetricsEndpoint":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return self._metrics(environ, start)  # type: ignore[no-any-return]
        if environ["PATH_INFO"] == "/readyz":
            reason = self._ready()
            status, text = ("200 OK", "ready") if reason is None else ("503 Service Unavailable", reason)
        else:
            status, text = "404 Not Found", "This endpoint has /metrics and /readyz."
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, so that a connection that says nothing holds nobody up."""

    daemon_threads = True
    block_on_close = False


class _QuietHandler(WSGIRequestHandler):
    """Keeps requests out of the progress bar, and waits for a silent caller no longer than ``timeout`` seconds."""

    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
