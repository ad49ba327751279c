"""Items of several actors, merged as they come."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Self

import ray
from ray.exceptions import RayError

from twinkle.errors import RemoteTimeoutError
from twinkle.infra.actors import Actors
from twinkle.infra.dispatch import Call
from twinkle.infra.host import CONTROL
from twinkle.infra.remote import RemoteFunction
from twinkle.infra.waiting import fail

END_S = 10.0


class RemoteStream(Iterator[Any]):
    """The items of all replicas in the order of their arrival; of the ranks that hold one model, those of one.

    `close`, the end of a ``with`` block, an error, or losing the last reference ends the stream at every replica.
    ``owner`` lives as long as the stream.
    """

    def __init__(
        self, actors: Actors, name: str, spec: RemoteFunction, calls: Mapping[int, Call], site: str, owner: object
    ) -> None:
        self._actors, self._spec, self._site, self._owner = actors, spec, site, owner
        self._what = f"{actors.cls.__name__}.{name}"
        self._id = uuid.uuid4().hex
        self._closed = False
        outputs = {actors.layout.output(data_rank) for data_rank in calls}
        self._open: dict[Any, tuple[int, Call, bool]] = {}
        for actor, call, payload in actors.sent(calls):
            method = actors.handles[actor].stream.options(num_returns="streaming")
            self._open[method.remote(self._id, name, payload)] = (actor, call, actor in outputs)

    def __next__(self) -> Any:
        deadline = time.monotonic() + self._actors.timeout_s(self._spec)
        while self._open:
            stream = self._ready(deadline)
            served = self._open.pop(stream, None)
            if served is None:  # closed by another thread meanwhile
                break
            actor, call, counts = served
            try:
                item = ray.get(next(stream))
            except StopIteration:
                continue
            except RayError as error:
                self.close()
                fail(error, self._what, self._actors.name(actor), self._site, self._actors.closed)
            if self._closed:
                break
            self._open[stream] = served  # behind the others, so that one fast replica does not keep them waiting
            if counts:
                return self._spec.collect(item, call.offset) if callable(self._spec.collect) else item
        raise StopIteration

    def close(self) -> None:
        """End the stream at every replica and wait until they know."""
        with contextlib.suppress(RayError):  # a lost actor has ended it
            ray.get(self._end(), timeout=END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", None) and ray.is_initialized():
            self._end()

    def _end(self) -> list[Any]:
        self._closed = True
        actors = [self._actors.handles[actor] for actor, _, _ in self._open.values()]
        self._open = {}
        return [actor.end_stream.options(concurrency_group=CONTROL).remote(self._id) for actor in actors]

    def _ready(self, deadline: float) -> Any:
        left = max(0.0, deadline - time.monotonic())
        waiting = list(self._open)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=left) if waiting else ([None], [])
        if ready:
            return ready[0]
        late = ", ".join(self._actors.name(actor) for actor, _, _ in self._open.values())
        self.close()
        raise RemoteTimeoutError(
            f"{self._what} had no next item within {self._actors.timeout_s(self._spec):g} s at {late}; it was called "
            f"at {self._site} and was ended"
        )
