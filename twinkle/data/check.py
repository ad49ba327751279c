"""A look at prompts before they are answered: a run would otherwise meet the odd one hours later."""

from collections.abc import Iterable, Sequence

from twinkle.data.base import Prompt, PromptRow, trajectory_of
from twinkle.data_format import InputFeature
from twinkle.errors import DataError
from twinkle.template import Template

SHOWN = 60
"""Characters of a prompt in a message."""


def check_prompts(rows: Iterable[PromptRow], template: Template, positions: int | None, max_tokens: int) -> None:
    """Raise the DataError of `encoded`, which names the place too, for the first row that cannot be answered."""
    for row in rows:
        try:
            encoded(row.prompt, template, positions, max_tokens)
        except DataError as error:
            raise DataError(f"{row.place}: {error}" if row.place else str(error)) from error


def answers_out_of_reach(rows: Sequence[PromptRow], template: Template, max_tokens: int) -> str:
    """A warning when no response can be as long as its answer; empty when one can.

    A reward that compares with the answer then never gives its best; another may not mind.
    """
    sizes = list[int]()
    for row in rows:
        sizes.append(len(template.tokenizer(row.answer, add_special_tokens=False)["input_ids"]))
        if sizes[-1] <= max_tokens:
            return ""
    return (
        f"every answer has more tokens than a response may have: the shortest has {min(sizes)}, and "
        f"sampler.max_tokens={max_tokens}"
    )


def encoded(prompt: Prompt, template: Template, positions: int | None, max_tokens: int) -> InputFeature:
    """The prompt as a sampler reads it, when a response of `max_tokens` tokens fits behind it.

    `positions` is how many tokens the model can read (None: any number). Raises DataError, which names the prompt, for
    one that is no prompt, is too long, is empty, or has text that the tokenizer does not know.
    """
    name = f"the prompt {_quoted(prompt)}"
    try:
        feature = template.encode(trajectory_of(prompt))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    tokens = len(feature["input_ids"])
    if not tokens:
        raise DataError(f"{name} has no token; a model needs at least one to go on from.")
    if positions is not None and tokens + max_tokens > positions:
        raise DataError(
            f"{name} has {tokens} tokens, which with sampler.max_tokens={max_tokens} is more than the model's "
            f"{positions} positions: shorten it, lower sampler.max_tokens, or take a model with more."
        )
    return feature


def _quoted(prompt: Prompt) -> str:
    """Its last message; what is no prompt, as it is."""
    try:
        text = str(trajectory_of(prompt)["messages"][-1]["content"])
    except (LookupError, TypeError):
        text = str(prompt)
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
