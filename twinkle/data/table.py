"""Prompts out of a finite table of rows: shuffled anew in every epoch, some prompts held out."""

import json
from collections.abc import Sequence

from twinkle.data.base import Prompt, PromptRow, trajectory_of
from twinkle.data.choice import keyed_order
from twinkle.errors import DataError


class TablePrompts:
    """`rows` split by `seed` into those held out and those drawn, the latter epoch after epoch, each epoch in its own
    order.

    Different prompts are split: rows with the same prompt are on one side. Of a prompt that is held out only the first
    row is kept; one that is drawn comes in every epoch as often as it has rows.

    Args:
        origin: the file, for errors.

    Raises:
        DataError: fewer different prompts than `held_out_prompts` + 1.
    """

    def __init__(self, rows: Sequence[PromptRow], *, seed: int, held_out_prompts: int, origin: str):
        first: dict[str, PromptRow] = {}
        for row in rows:
            first.setdefault(_key(row.prompt), row)
        if len(first) <= held_out_prompts:
            raise DataError(
                f"{origin} has {len(first)} different prompts, and data.held_out_prompts={held_out_prompts} leaves "
                "none to train on: set it lower or give a larger file."
            )
        keys = list(first)
        held_out = [keys[index] for index in keyed_order(len(keys), seed, "split")[:held_out_prompts]]
        set_aside = set(held_out)
        self.seed = seed
        self._held_out = [first[key] for key in held_out]
        self._drawn = [row for row in rows if _key(row.prompt) not in set_aside]
        self._known = list(first.values())
        self._epoch, self._order = -1, list[int]()

    def draw(self, cursor: int, count: int) -> list[PromptRow]:
        """See `PromptSource.draw`."""
        return [self._at(index) for index in range(cursor, cursor + count)]

    def held_out(self) -> list[PromptRow]:
        """See `PromptSource.held_out`."""
        return list(self._held_out)

    def known_prompts(self) -> list[PromptRow]:
        """Every different prompt, held out or not, at its first place."""
        return list(self._known)

    def _at(self, index: int) -> PromptRow:
        epoch, place = divmod(index, len(self._drawn))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, keyed_order(len(self._drawn), self.seed, "epoch", epoch)
        return self._drawn[self._order[place]]


def _key(prompt: Prompt) -> str:
    """What makes prompts the same: text is the message of a user."""
    return json.dumps(trajectory_of(prompt), sort_keys=True)
