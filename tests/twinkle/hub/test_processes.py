"""Processes of their own: environment variables as a person sets them, two at once, and one that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.twinkle.hub.conftest import WEIGHTS
from tests.twinkle.hub.server import Hang, HubServer
from twinkle.errors import ModelNotFoundError
from twinkle.hub import HubConfig, resolve

CODE = """
import sys
import huggingface_hub.constants
from twinkle.hub import resolve
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
try:
    print(resolve(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(print("interrupted", flush=True) or 130)
"""


def start(model_id: str, hub: HubServer, cache: Path, **environment: str) -> "subprocess.Popen[str]":
    """A process that resolves an id, with the caches where the fixture keeps them."""
    places = {"HF_HUB_CACHE": str(cache / "hf"), "MODELSCOPE_CACHE": str(cache / "ms")}
    endpoints = {"HF_ENDPOINT": hub.url, "MODELSCOPE_DOMAIN": hub.url.removeprefix("http://")}
    endpoints["MODELSCOPE_ENDPOINT"] = hub.url
    env = {**os.environ, **places, **endpoints, "PYTHONWARNINGS": "ignore", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, model_id], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def folder_of(process: "subprocess.Popen[str]") -> Path:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return Path(out.strip())


def test_two_processes_at_once_share_a_download(
    hub: HubServer, storage: HubServer, scheme: str, tmp_path: Path
) -> None:
    both = [start(f"{scheme}://org/model", hub, tmp_path) for _ in range(2)]
    folders = {folder_of(process) for process in both}

    assert len(folders) == 1
    assert (folders.pop() / "model.safetensors").read_bytes() == WEIGHTS
    assert len(storage.asked("model.safetensors")) == 1


def test_hf_offline_is_honoured_as_the_library_knows_it(hub: HubServer, tmp_path: Path) -> None:
    folder = folder_of(start("hf://org/model", hub, tmp_path))
    hub.seen.clear()

    assert folder_of(start("hf://org/model", hub, tmp_path, HF_HUB_OFFLINE="1")) == folder
    assert hub.seen == []


def test_a_killed_download_is_gone_on_with(hub: HubServer, storage: HubServer, scheme: str, tmp_path: Path) -> None:
    hang = hub.faults.hang = Hang(after=200_000)
    process = start(f"{scheme}://org/model", hub, tmp_path)
    try:
        assert hang.reached.wait(60)
    finally:
        process.kill()
        process.communicate()
        hang.over.set()

    with pytest.raises(ModelNotFoundError, match="offline mode forbids"):
        resolve(f"{scheme}://org/model", settings=HubConfig(offline=True))
    assert (resolve(f"{scheme}://org/model") / "model.safetensors").read_bytes() == WEIGHTS
    assert len(storage.asked("model.safetensors")) == 2


def test_ctrl_c_ends_a_download(hub: HubServer, scheme: str, tmp_path: Path) -> None:
    """At once, and not when the file is whole: what was to come does not come any more."""
    hub.repositories["org/model"].files["model.safetensors"] = bytes(32 << 20)
    hang = hub.faults.hang = Hang(after=1 << 20)
    process = start(f"{scheme}://org/model", hub, tmp_path)
    assert hang.reached.wait(60)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "interrupted\n"
    hang.over.set()

    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [blob for blob in tmp_path.glob("*/**/blobs/*") if blob.stat().st_size == 32 << 20] == []
