"""When a response ends, and where its text does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twinkle.data_format import SamplingParams

Decode = Callable[[Sequence[int]], str]
UNFINISHED = "\ufffd"


@dataclass(frozen=True, slots=True)
class StopMatch:
    """The stop string that appeared, and the text before it."""

    string: str
    text: str


class StopStringSearch:
    """Follows one response token by token and finds the first place where one of the stop strings appears.

    Text grows by what a token adds to the few before it, so that tokens that mean something only together (bytes of one
    character, word pieces) are read right and the cost of a token does not grow with the response.
    """

    def __init__(self, strings: Sequence[str], decode: Decode, min_tokens: int) -> None:
        self._strings = strings
        self._longest = max(map(len, strings))
        self._decode = decode
        self._min_tokens = min_tokens
        self._tokens: list[int] = []
        self._context = 0
        self._read = 0
        self._text = ""

    def push(self, token: int) -> StopMatch | None:
        """Take one more token; the earliest match that it completes, if any (of matches that start together: the first
        given). Matches complete before min_tokens tokens do not count."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._read])
        grown = self._decode(self._tokens[self._context :])
        if grown.endswith(UNFINISHED) or len(grown) <= len(before):
            return None
        searched_to = len(self._text)
        self._text += grown[len(before) :]
        self._context, self._read = self._read, len(self._tokens)
        if len(self._tokens) < self._min_tokens:
            return None
        start = max(0, searched_to - self._longest + 1)
        return self._first_match(start, searched_to)

    def _first_match(self, start: int, searched_to: int) -> StopMatch | None:
        found = []
        for order, string in enumerate(self._strings):
            at = self._text.find(string, max(start, searched_to - len(string) + 1))
            if at >= 0:
                found.append((at, order))
        if not found:
            return None
        at, order = min(found)
        return StopMatch(self._strings[order], self._text[:at])


@dataclass(frozen=True, slots=True)
class Endings:
    """What ends a response: token ids, and strings that are looked for in its text.

    ``reported`` maps a token id to the stop string that it stands for, when that string is one special token: special
    tokens never appear in the text, so that such a string can be found by its id only.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    reported: dict[int, str]

    @classmethod
    def of(cls, params: SamplingParams, eos_ids: frozenset[int], special_ids: Mapping[str, int]) -> "Endings":
        """The endings that parameters ask for, of a model with these EOS ids and special tokens."""
        reported = {special_ids[string]: string for string in params.stop_strings if string in special_ids}
        ids = params.stop_ids | reported.keys() | (frozenset() if params.ignore_eos else eos_ids)
        strings = tuple(string for string in params.stop_strings if string not in special_ids)
        return cls(tuple(sorted(ids)), strings, reported)
