"""One piece of a manifest under another: what a person wrote wins, however wrong: the API server says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]


def under(given: Any, below: Any) -> Any:
    """`given` with what it lacks of `below`: mappings by key, lists of named things by name; else `given` alone.

    Neither is changed. A key that is there with the value null counts as given.
    """
    if isinstance(given, Mapping) and isinstance(below, Mapping):
        merged = {key: under(value, below[key]) if key in below else copy(value) for key, value in given.items()}
        return merged | {key: copy(value) for key, value in below.items() if key not in given}
    if isinstance(given, list) and isinstance(below, list):
        there = [_identity(item) for item in given]
        return copy(given) + [copy(item) for item in below if _identity(item) not in there]
    return copy(given)


def over(given: Any, above: list[Object], key: str) -> Any:
    """A list of `given` in which the items of `above` replace those with the same `key`; what is no list is left."""
    if given is None:
        given = []
    if not isinstance(given, list):
        return given
    taken = [item[key] for item in above]
    return [copy(item) for item in given if _get(item, key) not in taken] + copy(above)


def added(given: Any, more: Iterable[Object], key: str) -> Any:
    """A list of `given` and those of `more` whose `key` it has not; what is no list is left."""
    if given is None:
        given = []
    if not isinstance(given, list):
        return given
    there = [_get(item, key) for item in given]
    return copy(given) + [copy(item) for item in more if item[key] not in there]


def copy(value: Any) -> Any:
    """A deep copy of JSON."""
    if isinstance(value, Mapping):
        return {key: copy(item) for key, item in value.items()}
    return [copy(item) for item in value] if isinstance(value, list | tuple) else value


def part(holder: Object, key: str) -> Object | None:
    """The mapping in a key, made if there is none; None if a person wrote something else there."""
    if holder.get(key) is None:
        holder[key] = {}
    found = holder[key]
    return found if isinstance(found, dict) else None


def _identity(item: Any) -> Any:
    name = _get(item, "name")
    return item if name is None else ("name", name)


def _get(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, Mapping) else None
