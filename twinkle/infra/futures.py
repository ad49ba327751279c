"""Results that are asked for later: `submit` works alike on handles and on plain objects."""

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from twinkle.errors import RemoteTimeoutError

P = ParamSpec("P")
T = TypeVar("T")


class Future(Generic[T]):
    """A result on its way."""

    def __init__(self, wait: Callable[[float | None], T], done: Callable[[], bool]) -> None:
        self._wait, self._done = wait, done

    def result(self, timeout_s: float | None = None) -> T:
        """The result, or the call's own error; RemoteTimeoutError when it takes longer than ``timeout_s``.

        None: the call's own deadline.
        """
        return self._wait(timeout_s)

    def done(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._done()


def submit(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin a call of a handle's method, or of any function in a thread of its own, and return its future."""
    begin = getattr(method, "submit", None)
    if callable(begin):
        future: Future[T] = begin(*args, **kwargs)
        return future
    return _in_thread(method, args, kwargs)


def _in_thread(method: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
    inner: concurrent.futures.Future[T] = concurrent.futures.Future()
    name = getattr(method, "__qualname__", repr(method))

    def run() -> None:
        try:
            inner.set_result(method(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            inner.set_exception(error)

    def wait(timeout_s: float | None) -> T:
        finished, _ = concurrent.futures.wait([inner], timeout_s)
        if not finished:
            raise RemoteTimeoutError(f"{name} did not end within {timeout_s:g} s, and goes on")
        return inner.result()

    threading.Thread(target=run, name=f"submit {name}", daemon=True).start()
    return Future(wait, inner.done)
