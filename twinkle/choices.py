"""A word out of a few, and the nearest one where a word is none of them."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

from twinkle.errors import ConfigError

ABOUT_AS_NEAR = 0.05


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean x?" for the known name that looks most like `name`, else a full stop.

    A second name that is about as near is named too.
    """
    close = get_close_matches(name, list(known), n=2, cutoff=0.6)
    if len(close) == 2 and _likeness(name, close[1]) < _likeness(name, close[0]) - ABOUT_AS_NEAR:
        close.pop()
    return f"; did you mean {' or '.join(close)}?" if close else "."


def _likeness(name: str, known: str) -> float:
    return SequenceMatcher(None, known, name).ratio()


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """`value`, when it is one of `choices`; otherwise a ConfigError that names the field and the nearest choice."""
    if value in choices:
        return value
    raise ConfigError(f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}{nearest(value, choices)}")
