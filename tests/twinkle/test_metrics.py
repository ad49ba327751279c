import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from twinkle.errors import ConfigError
from twinkle.metrics import MetricsEndpoint, TrainingMetrics

ROW = {"step": 3, "reward_mean": 0.5, "loss": -0.1, "logp_diff_max": 1e-6, "seconds": 0.03, "queue_seconds": 0.002}


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_figures_of_a_step_are_served() -> None:
    registry = CollectorRegistry()
    TrainingMetrics(registry).step(ROW, tokens=256, samples=64)
    with MetricsEndpoint("127.0.0.1", 0, registry, ready=lambda: None) as endpoint:
        status, text = get(endpoint.port, "/metrics")

    assert status == 200
    for line in (
        "twinkle_step 3.0",
        "twinkle_reward_mean 0.5",
        "twinkle_sampled_tokens_total 256.0",
        "twinkle_trained_samples_total 64.0",
    ):
        assert line in text.splitlines()


def test_readyz_says_why_not() -> None:
    reasons = iter([None, "the queue does not answer"])
    with MetricsEndpoint("127.0.0.1", 0, CollectorRegistry(), ready=lambda: next(reasons)) as endpoint:
        assert get(endpoint.port, "/readyz") == (200, "ready\n")
        assert get(endpoint.port, "/readyz") == (503, "the queue does not answer\n")
        assert get(endpoint.port, "/elsewhere")[0] == 404


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=f"metrics.port={port} on 127.0.0.1 is in use"):
            MetricsEndpoint("127.0.0.1", port, CollectorRegistry(), ready=lambda: None)


def test_a_connection_that_says_nothing_holds_nobody_up() -> None:
    with (
        MetricsEndpoint("127.0.0.1", 0, CollectorRegistry(), ready=lambda: None) as endpoint,
        socket.create_connection(("127.0.0.1", endpoint.port)),
    ):
        assert get(endpoint.port, "/readyz") == (200, "ready\n")
