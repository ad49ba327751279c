"""Waiting for actors: results in order, the object's own errors with the caller's place, lost ranks by name."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from twinkle.errors import InfraError, RankLostError, RemoteTimeoutError

HERE = str(Path(__file__).parent)
PEER_S = 60.0
"""How long Ray may take to know that a rank is lost, with which another has lost contact."""
OUT_OF_TOUCH = ("gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""In what torch.distributed says of a peer that is gone."""


def call_site() -> str:
    """File, line and function of the nearest caller outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def connection() -> str:
    """What tells one connection of this process to Ray from the next; "" without any."""
    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.get_node_id()} {context.get_worker_id()}"


class Expected:
    """Results on their way from actors.

    ``what`` is called at the actors with these ``names``, from ``site``; ``closed`` says whether they were ended on
    purpose.
    """

    def __init__(
        self,
        what: str,
        refs: Sequence[Any],
        names: Sequence[str],
        site: str,
        closed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.what, self.refs, self.names, self.site, self._closed = what, list(refs), list(names), site, closed

    def get(self, timeout_s: float) -> list[Any]:
        """All results; the first error as soon as there is one, whatever the others do."""
        try:
            return list(ray.get(self.refs, timeout=timeout_s))
        except GetTimeoutError:
            raise self._late(timeout_s) from None
        except RayError as error:
            failed = next((name for name, ref in zip(self.names, self.refs, strict=True) if _failed(ref)), self.what)
            if len(self.refs) > 1 and _out_of_touch(error):
                failed, error = self._lost(failed, error)
            _forget(self.refs)
            fail(error, self.what, failed, self.site, self._closed())

    def _lost(self, failed: str, error: RayError) -> tuple[str, RayError]:
        """The rank whose loss is behind the error of one that spoke with it: which of both is heard first is chance."""
        waiting, deadline = dict(zip(self.refs, self.names, strict=True)), time.monotonic() + PEER_S
        while ready := ray.wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))[0] if waiting else []:
            name = waiting.pop(ready[0])
            try:
                ray.get(ready[0], timeout=1)
            except RayActorError as lost:
                return name, lost
            except RayError:
                continue
        return failed, error

    def done(self) -> bool:
        """Whether `get` would return at once, or raise."""
        ready, waiting = ray.wait(self.refs, num_returns=len(self.refs), timeout=0)
        return not waiting or any(_failed(each) for each in ready)

    def _late(self, timeout_s: float) -> RemoteTimeoutError:
        _, waiting = ray.wait(self.refs, num_returns=len(self.refs), timeout=0)
        late = [name for name, ref in zip(self.names, self.refs, strict=True) if ref in waiting]
        _forget(waiting)
        return RemoteTimeoutError(
            f"{self.what} did not end within {timeout_s:g} s at {', '.join(late)}, where it goes on; it was called at "
            f"{self.site}; a longer deadline is timeout_s of remote_function or call_timeout_s of initialize"
        )


def fail(error: RayError, what: str, name: str, site: str, closed: bool) -> NoReturn:
    """Raise what an error of Ray at the actor ``name`` means to the caller of ``what``."""
    note = f"{what} was called at {site}"
    if _out_of_touch(error) and not closed:
        raise RankLostError(f"a rank with which {name} works was lost; {note}; {name} says: {error.cause}") from error
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error.cause.add_note(note)
        raise error.cause from error
    if closed:
        raise InfraError(f"{name} was closed; {note}") from None
    raise RankLostError(f"{name} was lost; {note}; Ray says: {reason(error)}") from None


def reason(error: RayError) -> str:
    """What Ray says, without the identifiers and advice that it adds."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]
    return " ".join(filter(None, lines)).split(" Some common causes include")[0]


def _out_of_touch(error: RayError) -> bool:
    """Whether a rank has lost contact with another one."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return isinstance(cause, RuntimeError) and any(words in str(cause) for words in OUT_OF_TOUCH)


def _forget(refs: Sequence[Any]) -> None:
    """Let Ray know that nobody will ask for these, so that it does not log errors which nobody asked for."""
    for ref in refs:
        ref.future().add_done_callback(lambda future: future.exception())


def _failed(ref: Any) -> bool:
    ready, _ = ray.wait([ref], timeout=0)
    if not ready:
        return False
    try:
        ray.get(ref, timeout=1)
    except RayError:
        return True
    return False
