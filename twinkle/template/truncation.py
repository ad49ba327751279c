"""What to leave out of a conversation that is too long."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Cut = Callable[[Sequence[T], int], list[T]]


def _left(values: Sequence[T], length: int) -> list[T]:
    return list(values[len(values) - length :])


def _right(values: Sequence[T], length: int) -> list[T]:
    return list(values[:length])


def _middle(values: Sequence[T], length: int) -> list[T]:
    head = length - length // 2
    return [*values[:head], *values[len(values) - (length - head) :]]


CUTS: dict[str, Callable[[Sequence[Any], int], list[Any]]] = {"left": _left, "right": _right, "middle": _middle}
TRUNCATIONS = ("raise", *CUTS, "turns")


def shorter_conversations(messages: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The conversation without its oldest turn, then without the two oldest, and so on down to the last.

    A turn begins with a message of the user; system messages at the beginning stay.
    """
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    begins = [index for index in range(first, len(messages)) if messages[index]["role"] == "user"]
    for begin in begins:
        if begin > first:
            yield [*messages[:first], *messages[begin:]]
