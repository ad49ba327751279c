"""The prompts set aside for evaluation."""

from collections.abc import Sequence
from typing import TypeVar

from twinkle.errors import ConfigError

T = TypeVar("T")


def first_held_out(rows: Sequence[T], count: int) -> Sequence[T]:
    """The first `count` of the rows that were set aside; ConfigError when there are fewer."""
    if count > len(rows):
        raise ConfigError(
            f"eval.prompts={count}, but only data.held_out_prompts={len(rows)} were set aside: "
            "lower one or raise the other."
        )
    return rows[:count]
