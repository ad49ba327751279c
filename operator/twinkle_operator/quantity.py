"""Kubernetes quantities: 500m, 2, 1e3, 8Gi."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?")
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {letter: Decimal(1000) ** power for power, letter in enumerate("num", -3)}
_DECIMAL |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_FACTORS = _BINARY | _DECIMAL


def parse(text: str) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity: give a number, or one with m, k, M, G, Ki, Mi or Gi")
    number, unit, exponent = match.groups()
    return Decimal(f"{number}e{exponent or 0}") * (_FACTORS[unit] if unit else 1)


def whole(text: str) -> int | None:
    """The number rounded up, for bytes; None for a text that is no quantity."""
    return math.ceil(parse(text)) if is_quantity(text) else None


def is_quantity(text: str) -> bool:
    """Whether it can be parsed."""
    return _QUANTITY.fullmatch(text) is not None


def compare(one: str, other: str) -> int:
    """-1, 0 or 1, as CEL's compareTo."""
    return (parse(one) > parse(other)) - (parse(one) < parse(other))
