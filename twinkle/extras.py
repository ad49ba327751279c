"""Packages that come with an extra of twinkle-rl: one sentence where one is missing."""

from importlib.util import find_spec

from twinkle.errors import ConfigError

RAY_EXTRA = "'twinkle-rl[ray]'"


def require(module: str, wanted_by: str, extras: str) -> None:
    """Raise ConfigError, with what to do, unless the module is installed. Nothing is imported."""
    if find_spec(module) is None:
        raise ConfigError(missing(module, wanted_by, extras))


def missing(module: str, wanted_by: str, extras: str) -> str:
    """The sentence; `extras` as pip takes them."""
    return f"{wanted_by} needs the package {module}: 'make venv' in a checkout, or pip install {extras}."
