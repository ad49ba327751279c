"""A hub with a storage server, and caches of our own for each test."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.twinkle.hub.server import HubServer, Repository, serving

WEIGHTS = bytes(range(256)) * 1200


@pytest.fixture
def storage() -> Iterator[HubServer]:
    with serving(HubServer()) as server:
        yield server


@pytest.fixture
def hub(storage: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one model, whose caches lie in ``tmp_path``; large files come from ``storage``."""
    from huggingface_hub import close_session, constants

    for variable in (
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "TWINKLE_HUB_OFFLINE",
        "TWINKLE_MODEL_ALIASES",
        "MODELSCOPE_API_TOKEN",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    with serving(HubServer(storage)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", server.url)
        server.repositories["org/model"] = Repository(
            {
                "config.json": b"{}",
                "tokenizer.json": b'{"version": "1.0"}',
                "model.safetensors": WEIGHTS,
                "pytorch_model.bin": b"never fetched beside safetensors",
                "onnx/model.onnx": b"never",
                "original/consolidated.00.pth": b"never",
                "README.md": b"never",
            }
        )
        yield server
        for thread in threading.enumerate():
            if thread.name == "hub-download":  # what a stalled call left behind ends while its hub is still there
                thread.join()
        close_session()


@pytest.fixture(params=["hf", "ms"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)
