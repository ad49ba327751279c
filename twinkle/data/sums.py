"""Sums in words, such as "three plus four" with the answer "seven": the file that ships with the package, and its
reward.

`python -m twinkle.data.sums` prints the file anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path

SUMS_FILE = Path(__file__).parent / "files" / "sums_in_words.jsonl"
LARGEST = 20
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
SMALL, TENS = NUMBER_WORDS.split()[:20], NUMBER_WORDS.split()[20:]


def in_words(number: int) -> str:
    """A number from 0 to 99 in words: 7 -> seven, 34 -> thirty four."""
    if number < len(SMALL):
        return SMALL[number]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {SMALL[ones]}" if ones else "")


def sums_in_words() -> Iterator[str]:
    """The lines of the file: every sum of two numbers from 0 to LARGEST."""
    for left in range(LARGEST + 1):
        for right in range(LARGEST + 1):
            prompt = f"{in_words(left)} plus {in_words(right)}"
            yield json.dumps({"prompt": prompt, "answer": in_words(left + right)})


def nearness(prompt: str, response: str, answer: str) -> float:
    """1 for the answer, 0 for what is no number in words, and for other numbers 1/2 less 1/40 for each unit that they
    are off, but never less than 0. An answer that is no number in words is a ValueError."""
    numbers = {in_words(number): number for number in range(100)}
    said, right = numbers.get(response.strip()), numbers.get(answer.strip())
    if right is None:
        raise ValueError(
            f"the answer {answer!r} is no number from zero to ninety nine in words, as nearness needs it: "
            "set data.reward=exact_match"
        )
    if said is None:
        return 0.0
    return 1.0 if said == right else max(0.0, 0.5 - abs(said - right) / 40)


if __name__ == "__main__":
    print("\n".join(sums_in_words()))
