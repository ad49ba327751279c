"""The actors of one remote object, in order of ranks: calls go out to them, results come back."""

import inspect
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from twinkle.errors import InfraError
from twinkle.infra.collect import collected
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.dispatch import Call, dispatched
from twinkle.infra.host import CONTROL, URGENT, Machine
from twinkle.infra.layout import Layout
from twinkle.infra.remote import RemoteFunction
from twinkle.infra.waiting import Expected, connection, reason

log = logging.getLogger("twinkle")

CLOSE_S = 20.0


@dataclass(eq=False)
class Actors:
    """Actors of an object of ``cls``; plain data and handles, so that it travels to other processes of the cluster.

    Attributes:
        handles: the actors, as the layout orders them.
        machines: where each of them runs.
    """

    cls: type[Any]
    group: DeviceGroup
    layout: Layout
    handles: Sequence[Any]
    machines: Sequence[Machine]
    call_timeout_s: float
    closed: bool = False
    _turns: Iterator[int] = field(default_factory=itertools.count)
    _connection: str = field(default_factory=connection)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_turns", "_connection")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_turns": itertools.count(), "_connection": connection()}

    def name(self, index: int) -> str:
        """An actor, for a sentence."""
        return f"{self.layout.name(index)} of {self.cls.__name__} in group {self.group.name!r}"

    def timeout_s(self, spec: RemoteFunction) -> float:
        """The deadline of a call."""
        return self.call_timeout_s if spec.timeout_s is None else spec.timeout_s

    def calls(self, spec: RemoteFunction, bound: inspect.BoundArguments) -> dict[int, Call]:
        """The call of each data rank."""
        if self.closed or connection() != self._connection:
            how = "was closed" if self.closed else "was reached by a connection to Ray that has ended"
            raise InfraError(f"{self.cls.__name__} in group {self.group.name!r} {how}")
        return dispatched(spec.dispatch, self.layout.mesh, bound, spec.sliced, next(self._turns))

    def sent(self, calls: Mapping[int, Call]) -> list[tuple[int, Call, Any]]:
        """Actor, call and payload for each actor of the data ranks; a payload that several get travels once."""
        found = []
        shared: dict[int, Any] = {}
        for data_rank, call in calls.items():
            peers = self.layout.peers(data_rank)
            payload: Any = (call.args, dict(call.kwargs), call.offset)
            several = len(peers) > 1 or sum(other is call for other in calls.values()) > 1
            if several and any(payload):
                payload = shared.setdefault(id(call), None) or ray.put(payload)
                shared[id(call)] = payload
            found += [(actor, call, payload) for actor in peers]
        return found

    def expect(self, name: str, spec: RemoteFunction, calls: Mapping[int, Call], site: str) -> Expected:
        """Send the calls of a method or property."""
        sent = self.sent(calls)
        refs = [self._method("call", actor, spec).remote(name, payload) for actor, _, payload in sent]
        return Expected(
            f"{self.cls.__name__}.{name}", refs, [self.name(actor) for actor, _, _ in sent], site, lambda: self.closed
        )

    def one_result(self, spec: RemoteFunction, calls: Mapping[int, Call], results: Sequence[Any]) -> Any:
        """What the caller gets, of the results of all actors that were called: a model counts once."""
        actors = [actor for data_rank in calls for actor in self.layout.peers(data_rank)]
        by_actor = dict(zip(actors, results, strict=True))
        return collected(spec.collect, [by_actor[self.layout.output(rank)] for rank in calls], list(calls.values()))

    def close(self) -> None:
        """Close the objects, so far as they answer in time, and end the actors."""
        if not self.closed:
            self.closed = True
            if connection() == self._connection:
                closing = [actor.close.options(concurrency_group=CONTROL).remote() for actor in self.handles]
                ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
                for index, (actor, its_closing) in enumerate(zip(self.handles, closing, strict=True)):
                    self._say_unless_closed(index, its_closing)
                    ray.kill(actor)

    def _say_unless_closed(self, index: int, closing: Any) -> None:
        try:
            ray.get(closing, timeout=0)
        except RayActorError:
            log.debug("%s was lost before it was closed", self.name(index))
        except RayError as error:
            log.warning("%s was ended before it was closed: %s", self.name(index), reason(error))

    def _method(self, method: str, actor: int, spec: RemoteFunction) -> Any:
        found = getattr(self.handles[actor], method)
        return found.options(concurrency_group=URGENT) if spec.urgent else found


def travelling(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that every actor gets."""
    return {name: value for name, value in os.environ.items() if name.startswith("TWINKLE_")} | dict(env)
