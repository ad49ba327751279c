"""A word out of a few, and the nearest one where a word is none of them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from twinkle.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean x?" for the known name that looks most like `name`, else a full stop."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """`value`, when it is one of `choices`; otherwise a ConfigError that names the field and the nearest choice."""
    if value in choices:
        return value
    raise ConfigError(f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}{nearest(value, choices)}")
