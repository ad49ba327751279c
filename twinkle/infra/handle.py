"""What stands for an object on a device group: its declared methods and properties, `close`, and nothing else."""

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

    def __init__(self, handle: "Handle", name: str, spec: RemoteFunction) -> None:
        self._handle, self._actors, self._name, self._spec = handle, handle._actors, name, spec

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._handle._signature(self._name).bind(*args, **kwargs)
        if not self._spec.stream:
            return _begin(self._handle, self._name, self._spec, bound).result()
        calls = self._actors.calls(self._spec, bound)
        return RemoteStream(self._actors, self._name, self._spec, calls, call_site(), self._handle)

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call and return its future; `twinkle.infra.submit` is the same with types, and for any object."""
        if self._spec.stream:
            raise InfraError(f"{self._actors.cls.__name__}.{self._name} is a stream; call it, and take its items")
        bound = self._handle._signature(self._name).bind(*args, **kwargs)
        return _begin(self._handle, self._name, self._spec, bound)


class Handle:
    """Stands for an object of a remote class; made by its constructor in mode "ray".

    It has the class's declared methods and properties. It travels to other processes of the cluster, where it works
    alike. `close`, the end of a ``with`` block, the loss of the last reference in the process that made it, or that
    process's death ends the actors and gives back what the device group held.
    """

    def __init__(self, actors: Actors, close: Callable[[], None] | None) -> None:
        self._actors, self._close = actors, close
        self._declared = declared(actors.cls)
        self._signatures: dict[str, inspect.Signature] = {}

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """The remote class, so that ``isinstance`` holds for a handle as for a plain object."""
        return self._actors.cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_actors" not in self.__dict__:
            raise AttributeError(name)
        cls, known = self._actors.cls, self._declared
        if name not in known:
            raise AttributeError(
                f"{cls.__name__} on a device group has no declared attribute {name!r}; declared with remote_function: "
                f"{', '.join(known) or 'none'}"
            )
        if isinstance(inspect.getattr_static(cls, name), property):
            return _begin(self, name, known[name], _NO_ARGUMENTS).result()
        return RemoteMethod(self, name, known[name])

    def close(self) -> None:
        """Close the object (its own ``close``, if it has one) and end its actors; may be called twice."""
        if self._close is None:
            raise InfraError(f"{self!r} was made by another process; it is closed there")
        self._close()

    def _signature(self, name: str) -> inspect.Signature:
        if name not in self._signatures:
            self._signatures[name] = _signature(self._actors.cls, name)
        return self._signatures[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close is not None:
            self._close()

    def __reduce__(self) -> Any:
        return Handle, (self._actors, None)

    def __repr__(self) -> str:
        actors = self._actors
        return f"<{actors.cls.__name__} on device group {actors.group.name!r}, {actors.layout.mesh}>"


def _begin(handle: Handle, name: str, spec: RemoteFunction, bound: inspect.BoundArguments) -> Future[Any]:
    """Send a call. The handle lives until its future does not, since the actors end with it."""
    actors = handle._actors
    calls = actors.calls(spec, bound)
    expected = actors.expect(name, spec, calls, call_site())

    def wait(timeout_s: float | None, _handle: Handle = handle) -> Any:
        results = expected.get(actors.timeout_s(spec) if timeout_s is None else timeout_s)
        return actors.one_result(spec, calls, results)

    return Future(wait, expected.done)


_NO_ARGUMENTS = inspect.Signature().bind()


def _signature(cls: type[Any], name: str) -> inspect.Signature:
    """Of a method without its first argument, so that wrong arguments are a TypeError here, not in an actor."""
    signature = inspect.signature(getattr(cls, name))
    return signature.replace(parameters=list(signature.parameters.values())[1:])
