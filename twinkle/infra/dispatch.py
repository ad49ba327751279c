"""From one call to the calls of the data-parallel replicas: pure.

A call goes to data ranks, i.e. replicas; the ranks that hold one model together all get their replica's call.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.infra.device_mesh import DeviceMesh

DISPATCHES = ["slice_dp", "all"]


@dataclass(frozen=True, slots=True)
class Call:
    """What one replica is called with.

    Attributes:
        offset: index of its first item in the caller's list.
        size: how many items of that list it got; None when its arguments were not sliced.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    offset: int = 0
    size: int | None = None


Dispatch = str | Callable[..., Sequence[Call | None]]
"""A name, or a function of (mesh, *args, **kwargs) that returns one Call a data rank, None for those to be left out."""


def require_dispatch(dispatch: Dispatch) -> None:
    """A ConfigError unless it is a function or one of the names."""
    if not callable(dispatch):
        one_of("dispatch", dispatch, DISPATCHES)


def slices(items: int, parts: int) -> list[range]:
    """Consecutive ranges that share so many items out evenly, longer ones first, none empty: at most ``parts``."""
    each, longer = divmod(items, parts)
    sizes = [each + 1] * longer + [each] * (parts - longer)
    found, start = [], 0
    for size in filter(None, sizes):
        found.append(range(start, start + size))
        start += size
    return found


def dispatched(
    how: Dispatch, mesh: DeviceMesh, bound: inspect.BoundArguments, sliced: Sequence[str] | None, turn: int
) -> dict[int, Call]:
    """The call of each data rank that is called, in order of the items.

    - "all": every data rank gets the arguments as they are.
    - "slice_dp": the lists among the arguments are cut into one slice a data rank, the same for all of them. With fewer
      items than data ranks, or none, or a single input, the ``turn`` says at which data rank the calls begin, so that
      small calls spread over the replicas.
    - a function: what it returns.
    """
    args, kwargs = bound.args, bound.kwargs
    if callable(how):
        return _by_function(how, mesh, args, kwargs)
    if how == "all":
        return dict.fromkeys(range(mesh.data_size), Call(args, kwargs))
    return _sliced(mesh.data_size, bound, sliced, turn)


def _sliced(parts: int, bound: inspect.BoundArguments, sliced: Sequence[str] | None, turn: int) -> dict[int, Call]:
    names = lists_in(bound.arguments, sliced)
    if not names:
        return {turn % parts: Call(bound.args, bound.kwargs)}
    items = len(bound.arguments[names[0]])
    if items == 0:
        return {turn % parts: Call(bound.args, bound.kwargs, size=0)}
    calls = [_cut(bound, names, cut) for cut in slices(items, parts)]
    first = turn if len(calls) < parts else 0
    return {(first + i) % parts: call for i, call in enumerate(calls)}


def _cut(bound: inspect.BoundArguments, names: Sequence[str], cut: range) -> Call:
    arguments = {**bound.arguments, **{name: bound.arguments[name][cut.start : cut.stop] for name in names}}
    part = inspect.BoundArguments(bound.signature, arguments)
    return Call(part.args, part.kwargs, offset=cut.start, size=len(cut))


def lists_in(arguments: Mapping[str, Any], sliced: Sequence[str] | None) -> list[str]:
    """Names of the arguments to slice; none when the first of them is a single input.

    ``sliced`` names the arguments that may be lists or tuples of items, the inputs first; without it, every list is
    one. ConfigError when they are not equally long.
    """
    if sliced is None:
        names = [name for name, value in arguments.items() if isinstance(value, list)]
    else:
        names = [name for name in sliced if isinstance(arguments.get(name), list | tuple)]
        if not isinstance(arguments.get(sliced[0]), list | tuple):
            return []
    for name in names[1:]:
        if len(arguments[name]) != len(arguments[names[0]]):
            raise ConfigError(
                f"{names[0]} has {len(arguments[names[0]])} items and {name} {len(arguments[name])}; lists that are "
                "shared out over replicas must be equally long"
            )
    return names


def _by_function(
    how: Callable[..., Sequence[Call | None]], mesh: DeviceMesh, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[int, Call]:
    calls = list(how(mesh, *args, **kwargs))
    if len(calls) != mesh.data_size or not all(call is None or isinstance(call, Call) for call in calls):
        raise ConfigError(
            f"dispatch {getattr(how, '__name__', how)!r} returned {len(calls)} calls; it must return one Call or None "
            f"for each of the {mesh.data_size} data ranks"
        )
    return {rank: call for rank, call in enumerate(calls) if call is not None}
