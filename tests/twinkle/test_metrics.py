import json
import socket
import urllib.request
from threading import Thread
from urllib.error import URLError

import pytest
from prometheus_client import CollectorRegistry

from transfer_queue import TransferQueueController
from transfer_queue.status import Progress
from twinkle.errors import ConfigError
from twinkle.metrics import TrainingMetrics, served

ROW = {
    "step": 3, "reward_mean": 0.5, "loss": -0.1, "logp_diff_max": 1e-6, "seconds": 0.03, "queue_seconds": 0.002,
    "version": "1.3", "sync_seconds": 0.004,
}  # fmt: skip


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        text: str = reply.read().decode()
        return text


def test_the_figures_of_a_step_are_served_beside_the_queues() -> None:
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.progress.update(lineage=1, checkpoint_step=2)
    metrics.step(ROW, tokens=256, samples=64)
    with (
        TransferQueueController.start(global_batch_size=2) as controller,
        served("127.0.0.1", 0, controller.get_info(), registry=registry, progress=metrics.progress) as endpoint,
    ):
        text, status = get(endpoint.port, "/metrics"), json.loads(get(endpoint.port, "/v1/status"))

    for line in (
        "twinkle_step 3.0",
        "twinkle_reward_mean 0.5",
        "twinkle_sampled_tokens_total 256.0",
        "twinkle_trained_samples_total 64.0",
        "twinkle_weight_sync_duration_seconds_sum 0.004",
        "transfer_queue_up 1.0",
    ):
        assert line in text.splitlines()
    figures = [status[name] for name in ("lineage", "step", "version", "reward", "checkpoint_step")]
    assert figures == [1, 3, "1.3", 0.5, 2]


def test_the_pages_stay_until_the_last_figures_were_read() -> None:
    progress = Progress()
    with TransferQueueController.start(global_batch_size=2) as controller:
        with served("127.0.0.1", 0, controller.get_info(), progress=progress, linger_s=60) as endpoint:
            get(endpoint.port, "/v1/status")
            progress.update(step=7)
            reader = Thread(target=lambda: told.append(json.loads(get(endpoint.port, "/v1/status"))["step"]))
            told: list[int] = []
            reader.start()
        reader.join()
        assert told == [7]

        with served("127.0.0.1", 0, controller.get_info(), progress=progress, linger_s=0.05) as endpoint:
            pass
    with pytest.raises(URLError):
        get(endpoint.port, "/v1/status")


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken, TransferQueueController.start(global_batch_size=2) as controller:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with (
            pytest.raises(
                ConfigError, match=f"metrics.port={port}: port {port} on 127.0.0.1 is in use: choose another, or 0 to"
            ),
            served("127.0.0.1", port, controller.get_info()),
        ):
            pass
