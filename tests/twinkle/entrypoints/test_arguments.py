"""Options may stand anywhere; what is none of them is refused."""

import pytest

from twinkle.entrypoints.arguments import options_first
from twinkle.errors import ConfigError

SETTINGS = ["loop", "loop.steps", "experiment"]


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        ("a=1 -m b=2", "-m a=1 b=2"),
        ("a=1 --cfg job b=2 --resolve", "--cfg job --resolve a=1 b=2"),
        ("a=1 --cfg=job ~b", "--cfg=job a=1 ~b"),
        ("--info a=1", "--info a=1"),
        ("a=-1", "a=-1"),
    ],
)
def test_options_come_first_and_the_order_of_overrides_stays(given: str, ordered: str) -> None:
    assert options_first(given.split(), SETTINGS) == ordered.split()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--loop.steps=50", "'--loop.steps=50' is no option: settings are written without dashes, loop.steps=50."),
        ("--loop.steps", "'--loop.steps' is no option: settings are written without dashes, loop.steps=VALUE."),
        ("--steps=5", "'--steps=5' is no option: settings are written without dashes; did you mean loop.steps?"),
        ("--multi", "'--multi' is no option; did you mean --multirun?"),
        ("-x", "'-x' is no option."),
    ],
)
def test_a_setting_with_dashes_is_told_to_drop_them(argument: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_first(["experiment=quickstart", argument], SETTINGS)
    assert str(caught.value) == sentence
