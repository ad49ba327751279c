"""A setting that is one word out of a few."""

from collections.abc import Sequence
from difflib import get_close_matches

from twinkle.errors import ConfigError


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """`value`, when it is one of `choices`; otherwise a ConfigError that names the field and the nearest choice."""
    if value in choices:
        return value
    near = get_close_matches(value, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}.{hint}")
