"""What both hubs promise, against a server that speaks their protocols."""

import socket
import threading
from pathlib import Path

import pytest

from tests.twinkle.hub.conftest import WEIGHTS
from tests.twinkle.hub.server import HubServer, Repository
from twinkle.errors import DownloadError, ModelNotFoundError
from twinkle.hub import HubConfig, resolve

NEEDED = ["config.json", "model.safetensors", "tokenizer.json"]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_what_a_model_needs_is_fetched(hub: HubServer, scheme: str) -> None:
    folder = resolve(f"{scheme}://org/model")

    assert names(folder) == NEEDED
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_bin_is_fetched_where_there_is_no_safetensors(hub: HubServer, scheme: str) -> None:
    hub.repositories["org/old"] = Repository(
        {"config.json": b"{}", "pytorch_model.bin": b"w", "training_args.bin": b"t"}
    )

    assert names(resolve(f"{scheme}://org/old")) == ["config.json", "pytorch_model.bin"]


def test_an_adapter_is_fetched(hub: HubServer, scheme: str) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w", "README.md": b"r"}
    hub.repositories["org/adapter"] = Repository(files)
    folder = resolve(f"{scheme}://org/adapter", needs="adapter_config.json")

    assert names(folder) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_revision_can_be_named(hub: HubServer, scheme: str) -> None:
    assert names(resolve(f"{scheme}://org/model@v1.0")) == NEEDED


def test_a_second_call_fetches_nothing(hub: HubServer, storage: HubServer, scheme: str) -> None:
    first = resolve(f"{scheme}://org/model")
    fetched = len(storage.seen)

    assert resolve(f"{scheme}://org/model") == first
    assert len(storage.seen) == fetched


def test_a_new_commit_is_a_new_folder(hub: HubServer, scheme: str) -> None:
    first = resolve(f"{scheme}://org/model")
    hub.repositories["org/model"].files["config.json"] = b'{"new": 1}'
    hub.repositories["org/model"].commit = "b" * 40
    second = resolve(f"{scheme}://org/model")

    assert [(folder / "config.json").read_text() for folder in (first, second)] == ["{}", '{"new": 1}']


def test_offline_uses_the_cache_and_asks_nobody(hub: HubServer, scheme: str) -> None:
    folder = resolve(f"{scheme}://org/model")
    hub.seen.clear()

    assert resolve(f"{scheme}://org/model", settings=HubConfig(offline=True)) == folder
    assert hub.seen == []


def test_offline_with_a_cold_cache_says_what_to_do(
    hub: HubServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINKLE_HUB_OFFLINE", "1")

    with pytest.raises(ModelNotFoundError, match=rf"'{scheme}://org/model'.*offline mode.*unset hub\.offline"):
        resolve(f"{scheme}://org/model")
    assert hub.seen == []


def test_a_warm_cache_serves_where_the_hub_does_not(
    hub: HubServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve(f"{scheme}://org/model")
    for address in (closed_port(), hub.url):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", address)
        hub.faults.status = {"/": 503}

        assert resolve(f"{scheme}://org/model") == folder


def test_no_network_is_one_sentence(hub: HubServer, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    monkeypatch.setenv("MODELSCOPE_DOMAIN", closed_port())

    with pytest.raises(DownloadError, match=r"does not (serve|answer).*check the network.*TWINKLE_MODEL_ALIASES"):
        resolve(f"{scheme}://org/model")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_fails_is_named_with_its_status(hub: HubServer, scheme: str, status: int) -> None:
    hub.faults.status = {"/api/": status}

    with pytest.raises(DownloadError, match=rf"{hub.url}.*{status}"):
        resolve(f"{scheme}://org/model")


def test_an_unknown_model_is_not_found(hub: HubServer, scheme: str) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"'{scheme}://org/absent'.*no such model"):
        resolve(f"{scheme}://org/absent")


def test_an_unknown_revision_is_told_from_an_unknown_model(hub: HubServer, scheme: str) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"'{scheme}://org/model@v9'.*has the model, but no revision 'v9'"):
        resolve(f"{scheme}://org/model@v9")


def test_a_private_model_needs_the_token(
    hub: HubServer, storage: HubServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/model"].token = "secret"
    with pytest.raises(ModelNotFoundError, match="TOKEN"):
        resolve(f"{scheme}://org/model")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")

    assert names(resolve(f"{scheme}://org/model")) == NEEDED
    assert all("secret" not in str(headers) for headers in storage.asked("/"))


def test_a_download_that_is_cut_goes_on_where_it_was(hub: HubServer, storage: HubServer, scheme: str) -> None:
    hub.faults.cut = [200_000]
    folder = resolve(f"{scheme}://org/model")

    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    first, second = storage.asked("model.safetensors")
    assert "Range" not in first
    assert 0 < int(second["Range"].removeprefix("bytes=").rstrip("-")) <= 200_000


@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer.json"])
def test_a_broken_file_is_refused_and_not_kept(hub: HubServer, scheme: str, path: str) -> None:
    hub.faults.corrupt = {path}
    with pytest.raises(DownloadError, match=rf"{path} arrived broken.*removed"):
        resolve(f"{scheme}://org/model")
    hub.faults.corrupt = set()

    assert (resolve(f"{scheme}://org/model") / path).read_bytes() == hub.repositories["org/model"].files[path]


def test_a_silent_hub_ends_in_time(hub: HubServer, scheme: str) -> None:
    hub.faults.silent = threading.Event()
    try:
        with pytest.raises(DownloadError, match=r"nothing has arrived for 0\.3 s.*hub\.stall_s"):
            resolve(f"{scheme}://org/model", settings=HubConfig(stall_s=0.3))
    finally:
        hub.faults.silent.set()


def test_a_warm_cache_serves_where_the_hub_is_silent(hub: HubServer, scheme: str) -> None:
    folder = resolve(f"{scheme}://org/model")
    hub.faults.silent = threading.Event()
    try:
        assert resolve(f"{scheme}://org/model", settings=HubConfig(stall_s=0.3)) == folder
    finally:
        hub.faults.silent.set()


def test_threads_that_ask_at_once_share_one_download(hub: HubServer, storage: HubServer, scheme: str) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve(f"{scheme}://org/model"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 4
    assert len(storage.asked("model.safetensors")) == 1


def test_an_alias_may_be_a_mirror(hub: HubServer, scheme: str) -> None:
    settings = HubConfig(aliases={"ms://elsewhere/model": f"{scheme}://org/model"})

    assert names(resolve("ms://elsewhere/model", settings=settings)) == NEEDED


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
