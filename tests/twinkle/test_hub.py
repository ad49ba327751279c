import json
from pathlib import Path

import pytest

from twinkle.errors import ConfigError, ModelNotFoundError
from twinkle.hub import resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_a_local_folder_is_itself(folder: Path) -> None:
    assert resolve(str(folder)) == folder
    assert resolve(folder) == folder


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))

    assert resolve("~/model") == folder


@pytest.mark.parametrize("name", ["ms://Qwen/Qwen2.5-7B-Instruct", "hf://a/b", "a/b"])
def test_an_alias_leads_to_its_folder(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", json.dumps({name: str(folder)}))

    assert resolve(name) == folder


def test_a_remote_id_without_alias_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", json.dumps({"hf://Qwen/Qwen2-0.5B": "/nowhere"}))
    with pytest.raises(ModelNotFoundError, match=r"'hf://Qwen/Qwen2-0\.6B'.*TWINKLE_MODEL_ALIASES.*did you mean"):
        resolve("hf://Qwen/Qwen2-0.6B")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no folder .*absent"):
        resolve(str(tmp_path / "absent"))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json"):
        resolve(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_broken_aliases_name_the_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", text)
    with pytest.raises(ConfigError, match="TWINKLE_MODEL_ALIASES"):
        resolve("anything")
