"""Ids that need no hub."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.errors import ConfigError, ModelNotFoundError
from twinkle.hub import HubConfig, environment, resolve
from twinkle.hub.address import Address, parse
from twinkle.hub.files import wanted


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


def test_settings_overrule_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", json.dumps({"ms://a/b": "/nowhere"}))

    assert resolve("ms://a/b", settings=HubConfig(aliases={"ms://a/b": str(folder)})) == folder


def test_an_alias_may_lead_to_an_alias(folder: Path) -> None:
    assert resolve("mine", settings=HubConfig(aliases={"mine": "hf://a/b", "hf://a/b": str(folder)})) == folder


def test_aliases_in_a_circle_are_named() -> None:
    with pytest.raises(ConfigError, match=r"circle: a -> b -> a"):
        resolve("a", settings=HubConfig(aliases={"a": "b", "b": "a"}))


def test_organisation_and_name_alone_are_a_path() -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no folder 'Qwen/Q'; .* hf://Qwen/Q or ms://Qwen/Q"):
        resolve("Qwen/Q")


def test_a_near_alias_is_suggested() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean my-model"):
        resolve("my-modle", settings=HubConfig(aliases={"my-model": "/somewhere"}))


@pytest.mark.parametrize(
    ("model_id", "sentence"),
    [
        ("s3://bucket/model", "unknown scheme 's3'"),
        ("https://hub/model", "unknown scheme 'https'"),
        ("mss://a/b", "did you mean ms"),
        ("ms://name", "looks like ms://organisation/name"),
        ("hf://", "is no name on Hugging Face"),
        ("hf://a/b/c", "is no name"),
        ("hf://../b", "is no name"),
        ("hf://a/..", "is no name"),
        ("hf://a b/c", "is no name"),
        ("hf://a/b@", "has the revision ''"),
        ("hf://a/b@x y", "has the revision 'x y'"),
        ("ms://a/b@../../etc", "has the revision"),
        ("ms://a/b@/etc", "has the revision"),
    ],
)
def test_ids_that_cannot_be_are_refused_with_a_sentence(model_id: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve(model_id)


PART = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.]{0,8}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda part: ".." not in part
)
REVISION = st.one_of(st.none(), PART, st.builds(lambda a, b: f"{a}/{b}", PART, PART))


@settings(deadline=None)
@given(st.builds(Address, st.sampled_from(["hf", "ms"]), st.builds(lambda a, b: f"{a}/{b}", PART, PART), REVISION))
def test_an_address_is_what_it_spells(address: Address) -> None:
    assert parse(str(address)) == address


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_an_address_a_path_or_a_sentence(text: str) -> None:
    try:
        address = parse(text)
    except ConfigError:
        assert "://" in text
    else:
        assert address is None or str(address) == text


def test_safetensors_come_before_bin_and_other_formats_stay_away() -> None:
    files = [
        "config.json",
        "a.safetensors",
        "a.bin",
        "consolidated.safetensors",
        "onnx/m.json",
        "chat_template.jinja",
        "x.py",
    ]

    assert wanted(files) == ["config.json", "chat_template.jinja", "a.safetensors"]
    assert wanted(["config.json", "a.bin", "optimizer.bin"]) == ["config.json", "a.bin"]


@pytest.mark.parametrize(
    ("config", "field"),
    [(HubConfig(aliases={"a": ""}), r"hub\.aliases"), (HubConfig(stall_s=0), r"hub\.stall_s")],
)
def test_settings_that_cannot_work_name_the_field(config: HubConfig, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        config.validate()


def test_another_process_gets_aliases_mirrors_and_offline_mode_but_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "TWINKLE_HUB_OFFLINE",
        "MODELSCOPE_DOMAIN",
        "MODELSCOPE_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", '{"a": "/a", "b": "/b"}')
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror")
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = environment(HubConfig(aliases={"b": "/c"}, offline=True))

    assert json.loads(found.pop("TWINKLE_MODEL_ALIASES")) == {"a": "/a", "b": "/c"}
    assert found == {"HF_ENDPOINT": "https://mirror", "TWINKLE_HUB_OFFLINE": "1"}
