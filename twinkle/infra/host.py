"""The process of a rank or replica: one actor around one object of a remote class."""

import os
import socket
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ray
from ray import cloudpickle

from twinkle.errors import ConfigError, InfraError
from twinkle.infra.device_group import RESOURCES
from twinkle.infra.rank import Rank, become, hold_port, serve_from
from twinkle.infra.runtime import Runtime, set_runtime

URGENT, CONTROL = "urgent", "control"
THREADS = {URGENT: 8, CONTROL: 2}
"""Threads of their own for methods declared urgent, and for ending streams and objects, which waits for nothing."""

_END = object()


@dataclass(frozen=True, slots=True)
class Machine:
    """Where an actor runs: its node's name and Ray's id of it, address, a port that it holds (or 0), process, and the
    indexes of its accelerators.
    """

    node: str
    node_id: str
    address: str
    port: int
    pid: int
    devices: tuple[str, ...]


class Host:
    """What runs inside the actor. Every method that calls the object raises the object's own error, with a note."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._object: Any = None
        self._rank = Rank()
        self._streams: dict[str, Iterator[Any]] = {}
        self._ended: set[str] = set()

    def __repr__(self) -> str:
        """What Ray puts before each line that the process prints."""
        return self._name

    def machine(self, meet: bool) -> Machine:
        """Where this process is; with a port that it holds where others shall ``meet`` it."""
        address = ray.util.get_node_ip_address()
        context = ray.get_runtime_context()
        ids = context.get_accelerator_ids()
        devices = tuple(str(each) for name in RESOURCES.values() for each in ids.get(name, []))
        return Machine(
            socket.gethostname(),
            context.get_node_id(),
            address,
            hold_port(address) if meet else 0,
            os.getpid(),
            devices,
        )

    def build(self, cls: type[Any], payload: Any, rank: Rank, env: Mapping[str, str]) -> None:
        """Make the object, in a process that knows its rank and its group."""
        args, kwargs = payload
        os.environ.update(env)
        self._rank = rank
        assert rank.group is not None
        set_runtime(Runtime("local", MappingProxyType({rank.group.name: rank.group})))
        become(rank)
        try:
            self._object = cls(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            raise _told(error, rank) from None

    def call(self, name: str, payload: Any) -> Any:
        """The result of a method, or the value of a property."""
        args, kwargs, offset = payload
        serve_from(offset)
        try:
            found = getattr(self._object, name)
            if isinstance(getattr(type(self._object), name, None), property):
                return found
            result = found(*args, **kwargs)
            if isinstance(result, Generator):  # of which Ray would take the first item for the result
                raise ConfigError(
                    f"{type(self._object).__name__}.{name} returned a generator; declare it with stream=True"
                )
            return result
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            raise _told(error, self._rank) from None

    def stream(self, stream: str, name: str, payload: Any) -> Generator[Any, None, None]:
        """The items of an iterator, until it ends or `end_stream` says so; either way it is closed."""
        args, kwargs, offset = payload
        serve_from(offset)
        if stream in self._ended:
            self._ended.discard(stream)
            return
        try:
            items = iter(getattr(self._object, name)(*args, **kwargs))
            self._streams[stream] = items
            try:
                while stream not in self._ended:
                    item = next(items, _END)
                    if item is _END or stream in self._ended:
                        break
                    yield item
            finally:
                self._close_stream(stream)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            raise _told(error, self._rank) from None

    def end_stream(self, stream: str) -> None:
        """End a stream before its time; a generator notices at its next item, another iterator's `close` is called."""
        self._ended.add(stream)
        items = self._streams.get(stream)
        if items is not None and not isinstance(items, Generator):
            _close(items)

    def _close_stream(self, stream: str) -> None:
        _close(self._streams.pop(stream))
        self._ended.discard(stream)

    def close(self) -> None:
        """Close the object, if it can be."""
        _close(self._object)


def _close(what: Any) -> None:
    close = getattr(what, "close", None)
    if callable(close):
        close()


def _told(error: Exception, rank: Rank) -> Exception:
    """The error with a note of where it was raised; another in its place when it cannot travel."""
    note = f"raised at {rank}, process {os.getpid()} on {rank.node}"
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its own pickling raises
        error = InfraError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    error.add_note(note)
    return error
