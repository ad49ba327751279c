"""Text of others, before it is shown."""

from __future__ import annotations


def one_line(text: str, most: int) -> str:
    """On one line, of at most so many characters, none of which a terminal obeys."""
    clean = "".join(each if each.isprintable() else " " for each in text[: most + 1])
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def last_line(text: str, most: int) -> str:
    """The last line with something on it, as `one_line`: of a log, the error. Empty if there is none."""
    return one_line(next((line for line in map(str.strip, reversed(text.splitlines())) if line), ""), most)
