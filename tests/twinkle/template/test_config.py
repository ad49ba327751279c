import pytest

from twinkle.errors import ConfigError
from twinkle.template.config import NAMES, TemplateConfig
from twinkle.template.registry import TEMPLATES


def test_the_names_are_those_of_the_templates() -> None:
    assert set(NAMES) == set(TEMPLATES)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(TemplateConfig(name="chatmll"), "did you mean chatml"), (TemplateConfig(system_prompt=""), "is empty")],
)
def test_settings_that_cannot_work(config: TemplateConfig, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config.validate()
