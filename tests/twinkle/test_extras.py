import pytest

from twinkle.errors import ConfigError
from twinkle.extras import require


def test_a_module_that_is_there_is_not_imported() -> None:
    require("this", "the test", "'twinkle-rl[test]'")


def test_one_that_is_missing_is_told_with_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"the test needs the package no_such_module: 'make venv' in a checkout, or pip"
    ):
        require("no_such_module", "the test", "'twinkle-rl[test]'")
