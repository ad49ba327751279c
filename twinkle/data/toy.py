"""Tasks that a tiny model learns within seconds: prompts are random digits."""

from collections.abc import Callable, Iterator
from itertools import count as count_from

from twinkle.data.base import PromptRow
from twinkle.data.choice import keyed_number
from twinkle.errors import ConfigError


def reversed_digits(prompt: str) -> str:
    """The answer of reverse_digits: 0172 -> 2710."""
    return prompt[::-1]


def even_digits(prompt: str) -> str:
    """An answer of even_digits, one of many: as many even digits as the prompt has digits (see reward
    even_fraction)."""
    return "0" * len(prompt)


class DigitPrompts:
    """Endless random strings of `length` digits, each drawn evenly from those not held out; one may come again.

    Args:
        answer_of: gives the answer of a prompt.
        expected: what a person is shown in its place, where it is one of many.

    Raises:
        ConfigError: more than half of all possible prompts would be held out.
    """

    def __init__(
        self,
        *,
        seed: int,
        digits: str,
        length: int,
        held_out_prompts: int,
        answer_of: Callable[[str], str],
        expected: str = "",
    ):
        self.seed, self.length, self.answer_of, self.expected = seed, length, answer_of, expected
        self.digits = "".join(dict.fromkeys(digits))
        possible = len(self.digits) ** length
        if 2 * held_out_prompts > possible:
            raise ConfigError(
                f"data.held_out_prompts={held_out_prompts}, but {len(self.digits)} digits make only {possible} "
                f"prompts of length {length}: hold out at most half of them, or raise data.length."
            )
        self._held_out: dict[str, None] = {}
        candidates = self._candidates("held out")
        while len(self._held_out) < held_out_prompts:
            self._held_out[next(candidates)] = None

    def draw(self, cursor: int, count: int) -> list[PromptRow]:
        """See `PromptSource.draw`."""
        return [self._row(self._drawn(index)) for index in range(cursor, cursor + count)]

    def held_out(self) -> list[PromptRow]:
        """See `PromptSource.held_out`."""
        return [self._row(prompt) for prompt in self._held_out]

    def known_prompts(self) -> list[PromptRow]:
        """The held-out prompts: the others are as long and of the same digits."""
        return self.held_out()

    def _row(self, prompt: str) -> PromptRow:
        return PromptRow(prompt, self.answer_of(prompt), expected=self.expected)

    def _drawn(self, index: int) -> str:
        return next(prompt for prompt in self._candidates("draw", index) if prompt not in self._held_out)

    def _candidates(self, *key: int | str) -> Iterator[str]:
        """Random prompts without end; which ones is a function of the source's seed and `key`."""
        for attempt in count_from():
            number, characters = keyed_number(self.seed, *key, attempt), []
            for _ in range(self.length):
                number, digit = divmod(number, len(self.digits))
                characters.append(self.digits[digit])
            yield "".join(characters)
