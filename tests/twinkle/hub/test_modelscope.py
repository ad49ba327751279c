"""What our own client of ModelScope does beyond what every hub promises."""

import hashlib
from pathlib import Path

import pytest

from tests.twinkle.hub import server
from tests.twinkle.hub.conftest import WEIGHTS
from tests.twinkle.hub.server import HubServer, _Handler
from twinkle.errors import DownloadError
from twinkle.hub import HubConfig, resolve, transfer
from twinkle.hub.modelscope_api import endpoint

MODEL = "ms://org/model"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MODELSCOPE_DOMAIN", "www.modelscope.ai", "https://www.modelscope.ai"),
        ("MODELSCOPE_DOMAIN", "http://mirror:80/", "http://mirror:80"),
        ("MODELSCOPE_ENDPOINT", "https://mirror", "https://mirror"),
        ("MODELSCOPE_DOMAIN", "", "https://www.modelscope.cn"),
    ],
)
def test_the_domain_is_that_of_the_environment(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT", raising=False)
    monkeypatch.delenv("MODELSCOPE_DOMAIN", raising=False)
    monkeypatch.setenv(variable, value)

    assert endpoint() == expected


def test_a_server_that_ignores_ranges_sends_the_file_anew(hub: HubServer) -> None:
    hub.faults.cut, hub.faults.ignore_range = [200_000], True

    assert (resolve(MODEL) / "model.safetensors").read_bytes() == WEIGHTS


def test_what_was_kept_of_another_file_is_thrown_away(hub: HubServer, tmp_path: Path) -> None:
    key = hashlib.sha256(WEIGHTS).hexdigest()
    blobs = tmp_path / "ms" / "twinkle" / "org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{key}.incomplete").write_bytes(b"x" * (len(WEIGHTS) + 1))

    assert (resolve(MODEL) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_never_gets_whole_ends_with_an_error(hub: HubServer, storage: HubServer) -> None:
    hub.faults.cut = [100_000] + [0] * 10

    with pytest.raises(DownloadError, match=r"model\.safetensors stays at 65536 of 307200 bytes after 5 attempts"):
        resolve(MODEL)
    assert len(storage.asked("model.safetensors")) == 6


def test_storage_that_fails_is_tried_again(hub: HubServer, storage: HubServer) -> None:
    hub.faults.status = {"/storage/": 503}
    with pytest.raises(DownloadError, match=r"5 attempts.*503"):
        resolve(MODEL)


def test_files_of_the_library_are_taken_where_the_hash_agrees(
    hub: HubServer, storage: HubServer, tmp_path: Path
) -> None:
    library = tmp_path / "ms" / "hub" / "models" / "org" / "model"
    library.mkdir(parents=True)
    (library / "model.safetensors").write_bytes(WEIGHTS)
    (library / "config.json").write_bytes(b"[]")  # as long as the right one, but another

    folder = resolve(MODEL)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b"{}"
    assert storage.seen == []


def test_offline_uses_the_folder_of_the_library(hub: HubServer, tmp_path: Path) -> None:
    library = tmp_path / "ms" / "models" / "org--model" / "snapshots" / "master"
    library.mkdir(parents=True)
    (library / "config.json").write_text("{}")

    assert resolve(MODEL, settings=HubConfig(offline=True)) == library


def test_a_page_of_html_is_no_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "_json", lambda self, status, body: self._send(200, b"<html>", {}))

    with pytest.raises(DownloadError, match=r"answers '<html>'; does MODELSCOPE_DOMAIN name ModelScope\?"):
        resolve(MODEL)


def test_a_path_out_of_the_folder_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/model"].files["../../evil.json"] = b"{}"

    with pytest.raises(DownloadError, match=r"'\.\./\.\./evil\.json', which leads out"):
        resolve(MODEL)


def test_a_file_without_a_hash_is_known_by_its_size(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = server._ms_entry
    monkeypatch.setattr(server, "_ms_entry", lambda path, body: {**entry(path, body), "Sha256": ""})

    assert (resolve(MODEL) / "model.safetensors").read_bytes() == WEIGHTS
