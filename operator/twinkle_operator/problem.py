"""What is wrong with a stack, and where."""

from __future__ import annotations

from typing import Literal

import msgspec

from twinkle_operator.text import one_line

MOST_SAID = 2000
"""Characters of a sentence: it may quote a value of any length."""
Path = tuple[str | int, ...]
"""Keys and indices from the object's root: ("spec", "deviceGroups", 1, "mesh")."""


class MapKey(str):
    """A key that a person chose, such as a label's; the API server writes it in brackets."""

    __slots__ = ()


class Problem(msgspec.Struct, frozen=True, order=True):
    """One sentence about one field. `reason` is one word, as in a condition; a warning keeps nothing from running."""

    path: Path
    message: str
    severity: Literal["error", "warning"] = "error"
    reason: str = "Invalid"

    @property
    def where(self) -> str:
        """The field as the API server writes it: spec.deviceGroups[1].mesh."""
        return written(self.path)

    @property
    def sentence(self) -> str:
        """Where and what, on one line, of which a terminal obeys nothing."""
        return one_line(f"{self.where}: {self.message}", MOST_SAID)


def written(path: Path) -> str:
    """A path as the API server writes it."""
    parts = (f"[{part}]" if isinstance(part, int | MapKey) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")
