"""How tokens are drawn, checked once when it is written down."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import TypeGuard, TypeVar

from twinkle.errors import ConfigError

MAX_SEED = 2**64 - 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Parameters of sampling; a value that cannot work is a ConfigError that names the field.

    max_tokens: most tokens to draw, at least 1.
    temperature: logits are divided by it; 0 takes the most probable token (the lowest id among equals).
    top_p: keep the fewest most probable tokens whose probability reaches it, 1.0 = off; applied after top_k.
    top_k: keep that many most probable tokens, -1 = off.
    stop: one string or several; the text ends right before the first that appears.
    stop_token_ids: token ids that end the response, beside EOS.
    seed: 0 to 2**64 - 1. Sample j of a prompt depends on (seed, j) alone, so prompts that share a seed share their
        random numbers: give one SamplingParams per prompt for independent ones. None = fresh entropy for each prompt.
    logprobs: report that many most probable tokens at each position besides the sampled one; None = no such report.
    ignore_eos: EOS is a token like any other (stop_token_ids and stop still end the response).
    min_tokens: EOS and stop tokens are never drawn, and stop strings not looked for, among the first min_tokens tokens.
    allowed_token_ids: all others have probability 0; None = every token is allowed.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: str | Iterable[str] | None = None
    stop_token_ids: Iterable[int] | None = None
    seed: int | None = None
    logprobs: int | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    allowed_token_ids: Iterable[int] | None = None

    def __post_init__(self) -> None:
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise _wrong("allowed_token_ids", self.allowed_token_ids, "at least one token id, or None to allow all")
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "allowed_token_ids", _token_ids("allowed_token_ids", self.allowed_token_ids))
        _require_int("max_tokens", self.max_tokens, low=1)
        _require_int("min_tokens", self.min_tokens, low=0)
        if self.min_tokens > self.max_tokens:
            raise _wrong("min_tokens", self.min_tokens, f"at most max_tokens={self.max_tokens}")
        if not _is_number(self.temperature) or not math.isfinite(self.temperature) or self.temperature < 0:
            raise _wrong("temperature", self.temperature, "a finite number >= 0 (0 = greedy)")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise _wrong("top_p", self.top_p, "a number in (0, 1] (1.0 = off)")
        if not _is_int(self.top_k) or (self.top_k != -1 and self.top_k < 1):
            raise _wrong("top_k", self.top_k, "an integer >= 1, or -1 to turn it off")
        if self.seed is not None and (not _is_int(self.seed) or not 0 <= self.seed <= MAX_SEED):
            raise _wrong("seed", self.seed, "an integer from 0 to 2**64 - 1, or None for fresh entropy")
        if self.logprobs is not None:
            _require_int("logprobs", self.logprobs, low=0)
        if not isinstance(self.ignore_eos, bool):
            raise _wrong("ignore_eos", self.ignore_eos, "True or False")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none of them empty."""
        return tuple(self.stop or ())

    @property
    def stop_ids(self) -> frozenset[int]:
        """The stop_token_ids as a set."""
        return frozenset(self.stop_token_ids or ())

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken instead of a random one."""
        return self.temperature == 0


def _wrong(field: str, value: object, accepted: str) -> ConfigError:
    return ConfigError(f"SamplingParams.{field} is {value!r}; it must be {accepted}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _require_int(field: str, value: object, *, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise _wrong(field, value, f"an integer >= {low}")


def _strings(field: str, value: str | Iterable[str] | None) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else _as_tuple(field, value, "a string or several strings")
    if "" in strings or not all(isinstance(string, str) for string in strings):
        raise _wrong(field, value, "made of strings, none of them empty")
    return strings


def _token_ids(field: str, value: Iterable[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    ids = _as_tuple(field, value, "several token ids")
    if not all(_is_int(token) and token >= 0 for token in ids):
        raise _wrong(field, value, "made of token ids, integers >= 0")
    return ids


def _as_tuple(field: str, value: Iterable[T] | None, accepted: str) -> tuple[T, ...]:
    if value is None:
        return ()
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise _wrong(field, value, accepted)
    return tuple(value)
