"""What every source of prompts offers."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class PromptRow:
    """One prompt and its answer.

    Attributes:
        prompt_id: says where it comes from: "draw 17" is the 17th prompt of the run, "held out 3" is one for
            evaluation.
        prompt: text, or chat messages with the keys role and content.
        answer: what the reward compares with.
    """

    prompt_id: str
    prompt: str | list[dict[str, str]]
    answer: str


class PromptSource(Protocol):
    """An endless row of prompts whose only state is a cursor, and a fixed set that is never in it."""

    def draw(self, cursor: int, count: int) -> list[PromptRow]:
        """Prompts number cursor, cursor + 1, ..., `count` of them: a pure function of the source's seed and the
        cursor."""
        ...

    def held_out(self, count: int) -> list[PromptRow]:
        """The first `count` held-out prompts, the same at every call; none of them is ever drawn."""
        ...
