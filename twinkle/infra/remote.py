"""Classes whose objects live on a device group: `remote_class`, `remote_function`, and what they declare.

The class stays what it is. In mode "ray" with a ``remote_group`` its constructor call starts actors and returns a
handle (see `twinkle.infra.handle`); in every other case it returns the plain object.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.infra.collect import Collect, require_collect
from twinkle.infra.device_group import DeviceGroup, require_size
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.dispatch import Dispatch, require_dispatch
from twinkle.infra.rank import in_actor
from twinkle.infra.runtime import current_runtime

ACTORS = ["rank", "replica"]
MARK, CLASS_MARK = "__remote_function__", "__remote_class__"

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RemoteFunction:
    """How a method is called on a device group; see `remote_function`."""

    dispatch: Dispatch = "all"
    collect: Collect = "first"
    stream: bool = False
    sliced: Sequence[str] | None = None
    urgent: bool = False
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        require_dispatch(self.dispatch)
        require_collect(self.collect)


@dataclass(frozen=True, slots=True)
class RemoteClass:
    """How a class lies on a device group; see `remote_class`."""

    actors: str = "rank"
    concurrency: int = 1

    def __post_init__(self) -> None:
        one_of("actors", self.actors, ACTORS)
        require_size("concurrency", self.concurrency)


@overload
def remote_function(method: F, /) -> F: ...
@overload
def remote_function(
    *,
    dispatch: Dispatch = "all",
    collect: Collect | None = None,
    stream: bool = False,
    sliced: Sequence[str] | None = None,
    urgent: bool = False,
    timeout_s: float | None = None,
) -> Callable[[F], F]: ...
def remote_function(method: Any = None, /, **declared: Any) -> Any:
    """Declare a method (or the getter of a property) that may be called on a device group; the method stays as it is.

    An override in a subclass is declared as the method that it overrides, unless it is decorated itself.

    Args:
        dispatch: "all" (every replica gets the arguments as they are), "slice_dp" (lists are shared out over the
            replicas), or a function; see `twinkle.infra.dispatch`.
        collect: "first" (the default of "all"), "flatten" (that of "slice_dp"), "mean", "sum", or a function of
            (results, offsets); see `twinkle.infra.collect`. Of a stream: a function of (item, offset), for each item.
        stream: the method returns an iterator, and the caller gets the items of all replicas as they come.
        sliced: names of the arguments that "slice_dp" slices, the inputs first; None: every list.
        urgent: served beside the calls that ``concurrency`` bounds, so that an abort is not kept waiting by what it
            aborts.
        timeout_s: deadline of a call (of a stream: for the next item); None: that of `initialize`.
    """
    if declared.get("collect") is None:
        declared["collect"] = "flatten" if declared.get("dispatch", "all") != "all" else "first"
    spec = RemoteFunction(**declared)

    def mark(method: Any) -> Any:
        function = method.fget if isinstance(method, property) else method
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{function.__qualname__} is async; a remote function is a plain one, and concurrency=N of its class "
                "serves several calls at once"
            )
        setattr(function, MARK, spec)
        return method

    return mark if method is None else mark(method)


@overload
def remote_class(cls: type[C], /) -> type[C]: ...
@overload
def remote_class(*, actors: str = "rank", concurrency: int = 1) -> Callable[[type[C]], type[C]]: ...
def remote_class(cls: Any = None, /, *, actors: str = "rank", concurrency: int = 1) -> Any:
    """Let objects of a class live on a device group: its constructor takes ``device_mesh=`` and ``remote_group=``.

    Args:
        actors: "rank": one actor a rank, built with the mesh of the group (see `current_rank`). "replica": one actor
            a data-parallel replica, which owns the devices of its model ranks and is built with the mesh of one
            replica.
        concurrency: calls that one actor serves at once; more wait their turn.
    """
    spec = RemoteClass(actors, concurrency)

    def mark(cls: type[C]) -> type[C]:
        parameters = inspect.signature(cls.__init__).parameters
        for name in ("device_mesh", "remote_group"):
            if name not in parameters:
                raise ConfigError(f"{cls.__name__}.__init__ has no argument {name!r}; a remote class needs it")
        setattr(cls, CLASS_MARK, spec)
        if not hasattr(cls.__new__, CLASS_MARK):
            cls.__new__ = staticmethod(_maker(cls.__new__))  # type: ignore[method-assign]
        return cls

    return mark if cls is None else mark(cls)


def _maker(plain_new: Callable[..., Any]) -> Callable[..., Any]:
    """A ``__new__`` that returns a handle where the object shall live on a device group."""

    def make(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        if not in_actor() and (args or kwargs):
            handle = _remote(cls, args, kwargs)
            if handle is not None:
                return handle
        return plain_new(cls) if plain_new is object.__new__ else plain_new(cls, *args, **kwargs)

    setattr(make, CLASS_MARK, True)
    return make


def _remote(cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The handle for a constructor call; None when the object shall be a plain one."""
    try:
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
    except TypeError:
        return None  # the constructor itself says what is wrong
    mesh, name = bound.arguments.get("device_mesh"), bound.arguments.get("remote_group")
    runtime = current_runtime()
    if name is not None and runtime.cluster is not None:
        from twinkle.infra.start import start

        group = runtime.group(name)
        bound.arguments["device_mesh"] = fitting(mesh, group)
        return start(cls, bound, group, runtime.cluster)
    if mesh is not None and mesh.world_size != 1:
        missing = "remote_group names no device group" if runtime.mode == "ray" else "the mode is 'local'"
        raise ConfigError(
            f"{cls.__name__} got the device_mesh {mesh}, but {missing}, so it runs in this process as one rank; call "
            "twinkle.initialize('ray', groups=[...]) and name the group as remote_group"
        )
    return None


def fitting(mesh: DeviceMesh | None, group: DeviceGroup) -> DeviceMesh:
    """The mesh of a group: the one given, or one replica a rank; ConfigError when it has another number of ranks."""
    if mesh is None:
        return DeviceMesh(dp_size=group.ranks)
    if mesh.world_size != group.ranks:
        raise ConfigError(
            f"device_mesh is {mesh}, but device group {group.name!r} has {group.ranks} "
            f"rank{'s' if group.ranks > 1 else ''}; the sizes of the mesh must multiply to the ranks of its group"
        )
    return mesh


def declared(cls: type[Any]) -> Mapping[str, RemoteFunction]:
    """Names of a class's declared methods and properties, and how they are called."""
    found: dict[str, RemoteFunction] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            getter = value.fget if isinstance(value, property) else value
            spec = getattr(getter, MARK, None)
            if spec is not None:
                found.setdefault(name, spec)
    return dict(sorted(found.items()))
