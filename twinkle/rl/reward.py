"""Rewards: from a name to a function, and from a batch of samples to numbers, with every failure a RewardError.

A reward is any function (prompt, response, answer) -> float of three strings. Built in are exact_match,
fraction_correct and even_fraction; any other is named by its import path, ``module:function``.
"""

import importlib
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

from twinkle.choices import one_of
from twinkle.errors import ConfigError, RewardError

RewardFunction = Callable[[str, str, str], float]
LONGEST_QUOTE = 80


def exact_match(prompt: str, response: str, answer: str) -> float:
    """1 when response and answer are the same text, blanks around them aside; otherwise 0."""
    return float(response.strip() == answer.strip())


def fraction_correct(prompt: str, response: str, answer: str) -> float:
    """The fraction of places with the right character, out of the longer of response and answer."""
    places = max(len(response), len(answer))
    return sum(a == b for a, b in zip(response, answer, strict=False)) / places if places else 1.0


def even_fraction(prompt: str, response: str, answer: str) -> float:
    """The fraction of even digits, out of the longer of response and answer: any even digits as many as the answer's
    give 1."""
    places = max(len(response), len(answer))
    return sum(character in "02468" for character in response) / places if places else 1.0


BUILT_IN: dict[str, RewardFunction] = {
    "exact_match": exact_match,
    "fraction_correct": fraction_correct,
    "even_fraction": even_fraction,
}


@dataclass(frozen=True)
class Reward:
    """A reward function and the name it goes by."""

    name: str
    function: Callable[[str, str, str], object]

    def score(self, prompts: Sequence[Any], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
        """One finite number for each sample, in order. A prompt of chat messages, with tools or without, is handed on
        as their contents, one a line.

        Raises:
            RewardError: the function raised (the cause is chained) or returned something else; it never becomes a 0.
        """
        return [self._one(*sample) for sample in zip(prompts, responses, answers, strict=True)]

    def _one(self, prompt: Any, response: str, answer: str) -> float:
        messages = prompt["messages"] if isinstance(prompt, Mapping) else prompt
        text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in messages)
        try:
            value = self.function(text, response, answer)
            number = float(value) if isinstance(value, SupportsFloat) else math.nan
        except Exception as error:
            raise RewardError(
                f"reward {self.name} raised {type(error).__name__}: {error} ({_place(error)}); "
                f"{_sample(text, response, answer)}"
            ) from error
        if math.isfinite(number):
            return number
        raise RewardError(
            f"reward {self.name} returned {value!r}, which is no finite number; {_sample(text, response, answer)}"
        )


def resolve(name: str) -> Reward:
    """The reward called `name`: a built-in one, or ``module:function`` to be imported.

    Raises:
        ConfigError: there is none of that name, or its module or function cannot be had.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon:
        return Reward(name, BUILT_IN[one_of("data.reward", name, (*BUILT_IN, "module:function"))])
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        raise ConfigError(
            f"data.reward={name!r}: module {module_name!r} cannot be imported ({type(error).__name__}: {error})"
            + ("; is its folder on PYTHONPATH?" if missing else ".")
        ) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ConfigError(f"data.reward={name!r}: module {module_name!r} has no function {function_name!r}")
    if not callable(function):
        raise ConfigError(
            f"data.reward={name!r} is a {type(function).__name__}; give a function of (prompt, response, answer)"
        )
    _check_parameters(name, function)
    return Reward(name, function)


def _check_parameters(name: str, function: Callable[..., object]) -> None:
    """ConfigError for a function that cannot be called with three strings, before a model is loaded for it."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # one written in C says nothing of its parameters
    try:
        signature.bind("", "", "")
    except TypeError as error:
        raise ConfigError(
            f"data.reward={name!r} takes {signature} and is called with (prompt, response, answer): {error}."
        ) from error


def _place(error: Exception) -> str:
    """File and line where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _sample(prompt: str, response: str, answer: str) -> str:
    parts = {"prompt": prompt, "response": response, "answer": answer}
    return ", ".join(f"{key} {_short(value)!r}" for key, value in parts.items())


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…"
