"""From the results of the replicas to one result: pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.infra.dispatch import Call

COLLECTS = ["flatten", "first", "mean", "sum"]

Collect = str | Callable[[Any, Any], Any]
"""A name, or a function of (results, offsets), one of each a replica that was called, in order of the items."""


def require_collect(collect: Collect) -> None:
    """A ConfigError unless it is a function or one of the names."""
    if not callable(collect):
        one_of("collect", collect, COLLECTS)


def collected(how: Collect, results: Sequence[Any], calls: Sequence[Call]) -> Any:
    """One result from those of the replicas, which are in order of the items; models count once, not each rank.

    - "flatten": the lists of the replicas, one after another. The result of a single input is returned as it is.
    - "first": the first one.
    - "sum", "mean": of numbers, arrays, tensors, and of mappings of those, key by key. A mean counts each replica by
      the number of items it got, so that a mean of means is the mean over all items.
    - a function: of the results and of the index of each one's first item.
    """
    if callable(how):
        return how(list(results), [call.offset for call in calls])
    if not results:
        raise ConfigError(f"collect {how!r} got no result, because no replica was called; use a function as collect")
    if how == "first":
        return results[0]
    if how == "flatten":
        return _flatten(results, calls)
    if how == "sum":
        return _weighted(results, [1] * len(results))
    sizes = [1 if call.size is None else call.size for call in calls]
    total = sum(sizes) or 1
    return results[0] if len(results) == 1 else _weighted(results, [size / total for size in sizes])


def _flatten(results: Sequence[Any], calls: Sequence[Call]) -> Any:
    if len(results) == 1 and calls[0].size is None:
        return results[0]
    for result in results:
        if not isinstance(result, list | tuple):
            raise ConfigError(
                f"collect 'flatten' got a {type(result).__name__}; the method must return a list, or its collect must "
                "be 'first', 'mean', 'sum' or a function"
            )
    return [item for result in results for item in result]


def _weighted(results: Sequence[Any], weights: Sequence[float]) -> Any:
    if isinstance(results[0], Mapping):
        return {key: _weighted([result[key] for result in results], weights) for key in results[0]}
    return sum(result if weight == 1 else result * weight for result, weight in zip(results, weights, strict=True))
