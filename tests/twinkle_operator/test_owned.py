"""Keys that the spec owns, in the forms in which Hydra takes them."""

import re

import pytest

from twinkle.config import TrainConfig
from twinkle.entrypoints.explain import known_keys
from twinkle_operator.owned import OVERRIDE, OWNED, PARTLY_OWNED, WHOLE_GROUP, owner

HYDRA = {"hydra", "experiment"}
KEYS = [key.removesuffix(".*") for owned in OWNED for key in owned.keys]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", ["{}=1", "+{}=1", "++{}=1", "~{}", "{}@here=1", "{}='a=b'"])
def test_an_owned_key_is_found_in_every_form(key: str, form: str) -> None:
    assert owner(form.format(key), with_model=True) is not None
    assert re.match(OVERRIDE, form.format(key))


@pytest.mark.parametrize(
    "free",
    ["loop.steps=50", "loop.prompts_per_steps=1", "infra.threads=2", "sampler.max_tokens=16", "queue.lease_s=60",
     "run.seed=1", "run.names=1", "model.lora.rank=4", "loop=async", "data=jsonl", "x='mesh=1'", "hydralike=1"],
)  # fmt: skip
def test_other_keys_are_free(free: str) -> None:
    assert owner(free, with_model=True) is None
    assert not re.match(WHOLE_GROUP, free)


def test_the_model_is_owned_where_the_spec_names_one() -> None:
    assert owner("model=local", with_model=False) is None
    owned = owner("model=local", with_model=True)

    assert owned is not None
    assert owned.sentence == "model, model.id: decided by spec.model; change it there, or leave spec.model out"


def test_below_a_group_that_is_owned_everything_is() -> None:
    assert owner("mesh.sampler_dp=2", with_model=False) == owner("mesh={}", with_model=False)
    assert owner("hydra/launcher=joblib", with_model=False) is not None


@pytest.mark.parametrize("group", PARTLY_OWNED)
def test_a_group_of_which_a_part_is_owned_is_not_replaced_or_removed(group: str) -> None:
    assert re.match(WHOLE_GROUP, f"{group}={{a: 1}}")
    assert re.match(WHOLE_GROUP, f"++{group}= {{}}")
    assert re.match(WHOLE_GROUP, f"~{group}")
    assert not re.match(WHOLE_GROUP, f"{group}=file")


@pytest.mark.parametrize("text", ["", "loop.steps", "a b=1", "a =1", "=1", "--multirun", "-m", "a=1\nb=2", "1a=2"])
def test_what_is_no_override(text: str) -> None:
    assert bool(re.match(OVERRIDE, text)) is (text == "loop.steps")


def test_every_owned_key_is_a_setting_of_a_run() -> None:
    settings = set(known_keys(TrainConfig)) | HYDRA

    assert [key for key in KEYS if key not in settings] == []
