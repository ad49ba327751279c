"""What stands for an object that lives on a device group: its declared methods and properties, `close`, and nothing else."""

import inspect
from collections.abc import Callable
from typing import Any, Self

from twinkle.errors import InfraError
from twinkle.infra.actors import Actors
from twinkle.infra.futures import Future
from twinkle.infra.remote import RemoteFunction, declared
from twinkle.infra.streams import RemoteStream
from twinkle.infra.waiting import call_site


class RemoteMethod:
    """A declared method of an object on a device group. Calling it waits for the result; `submit` returns a future."""

    def __init__(self, actors: Actors, name: str, spec: RemoteFunction, owner: object) -> None:
        self._actors, self._name, self._spec = actors, name, spec
        self._owner = owner  # lives as long as its methods are used

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._spec.stream:
            calls = self._actors.calls(self._spec, self._bound(args, kwargs))
            return RemoteStream(self._actors, self._name, self._spec, calls, call_site())
        return self._begin(args, kwargs).result()

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call and return its future; `twinkle.infra.submit` is the same with types, and for any object."""
        if self._spec.stream:
            raise InfraError(f"{self._actors.cls.__name__}.{self._name} is a stream; call it, and take its items")
        return self._begin(args, kwargs)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        return begin(self._actors, self._name, self._spec, self._bound(args, kwargs))

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments by name; a TypeError for wrong ones is raised here, not in an actor."""
        method = getattr(self._actors.cls, self._name)
        signature = _signature(method)
        return signature.bind(*args, **kwargs)


def begin(actors: Actors, name: str, spec: RemoteFunction, bound: inspect.BoundArguments) -> Future[Any]:
    """Send a call and return its future."""
    calls = actors.calls(spec, bound)
    expected = actors.expect(name, spec, calls, call_site())

    def wait(timeout_s: float | None) -> Any:
        results = expected.get(actors.timeout_s(spec) if timeout_s is None else timeout_s)
        return actors.one_result(spec, calls, results)

    return Future(wait, expected.done)


class Handle:
    """Stands for an object of a remote class; made by its constructor in mode "ray".

    It has the class's declared methods and properties. It travels to other processes of the cluster, where it works
    alike. `close`, the end of a ``with`` block, the loss of the last reference in the process that made it, or that
    process's death ends the actors and gives back what the device group held.
    """

    def __init__(self, actors: Actors, close: Callable[[], None] | None) -> None:
        self._actors, self._close = actors, close

    @property
    def __class__(self) -> type[Any]:  # type: ignore[override]
        """The remote class, so that ``isinstance`` holds for a handle as for a plain object."""
        return self._actors.cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        actors = self._actors
        known = declared(actors.cls)
        if name not in known:
            raise AttributeError(
                f"{actors.cls.__name__} on a device group has no declared attribute {name!r}; declared with "
                f"remote_function: {', '.join(known) or 'none'}"
            )
        if isinstance(inspect.getattr_static(actors.cls, name), property):
            return begin(actors, name, known[name], _NOTHING).result()
        return RemoteMethod(actors, name, known[name], self)

    def close(self) -> None:
        """Close the object (its own ``close``, if it has one) and end its actors; may be called twice."""
        if self._close is None:
            raise InfraError(f"{self!r} was made by another process; it is closed there")
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close is not None:
            self._close()

    def __reduce__(self) -> Any:
        return Handle, (self._actors, None)

    def __repr__(self) -> str:
        actors = self._actors
        return f"<{actors.cls.__name__} on device group {actors.group.name!r}, {actors.mesh}>"


def _nothing() -> None: ...


_NOTHING = inspect.signature(_nothing).bind()


def _signature(method: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:])
