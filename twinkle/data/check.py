"""A look at prompts before a run, which would otherwise meet the odd one hours later."""

from collections.abc import Iterable

from twinkle.data.base import PromptRow, trajectory_of
from twinkle.errors import DataError
from twinkle.template import Template


def check_prompts(rows: Iterable[PromptRow], template: Template, positions: int | None, max_tokens: int) -> None:
    """Encode every prompt and make sure that a response of `max_tokens` tokens fits behind it.

    `positions` is how many tokens the model can read (None: any number). Raises DataError for the first prompt that is
    too long, is empty, or has text that the tokenizer does not know; it names the place and the prompt.
    """
    for row in rows:
        try:
            tokens = len(template.encode(trajectory_of(row.prompt))["input_ids"])
        except DataError as error:
            raise DataError(f"{_name(row)}: {error}") from error
        if not tokens:
            raise DataError(f"{_name(row)} has no token; a model needs at least one to go on from.")
        if positions is not None and tokens + max_tokens > positions:
            raise DataError(
                f"{_name(row)} has {tokens} tokens, which with sampler.max_tokens={max_tokens} is more than the "
                f"model's {positions} positions: shorten it, lower sampler.max_tokens, or take a model with more."
            )


def _name(row: PromptRow) -> str:
    text = trajectory_of(row.prompt)["messages"][-1]["content"]
    quoted = repr(text if len(text) <= 60 else text[:60] + "…")
    return f"{row.place}: the prompt {quoted}" if row.place else f"the prompt {quoted}"
