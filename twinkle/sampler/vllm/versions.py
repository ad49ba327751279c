"""Adapters by name, and which version of each the calls in flight still need. Safe to use from several threads."""

import threading
from collections.abc import Callable

from twinkle.errors import AdapterError
from twinkle.sampler.vllm.engine import Weights


class AdapterVersions:
    """A call pins the version that it begins with; a replaced version is retired when nobody pins it any more.

    ``retire`` is called with the number of a version that no call needs.
    """

    def __init__(self, most: int, retire: Callable[[int], None]) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._retire = retire
        self._current: dict[str, Weights | None] = {}
        self._pins: dict[Weights, int] = {}
        self._old: set[Weights] = set()

    @property
    def names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        with self._lock:
            return list(self._current)

    @property
    def crowded(self) -> bool:
        """Whether a replaced version that calls still need holds the place of the next one."""
        with self._lock:
            return len(self._old) > 0

    def require_room(self, name: str) -> None:
        """AdapterError unless an adapter of this name can be had; one that is replaced takes no room."""
        with self._lock:
            if name not in self._current and len(self._current) >= self._most:
                raise AdapterError(
                    f"adapter {name!r} is one more than the {self._most} that this engine has room for: remove one, or "
                    "make the sampler with a higher max_adapters"
                )

    def pin(self, name: str) -> Weights | None:
        """The present version of an adapter, kept until ``unpin``; None = the model alone."""
        if not name:
            return None
        with self._lock:
            weights = self._known(name)
            if weights is not None:
                self._pins[weights] = self._pins.get(weights, 0) + 1
            return weights

    def unpin(self, weights: Weights | None) -> None:
        """A call has ended."""
        if weights is None:
            return
        with self._lock:
            self._pins[weights] -= 1
            if self._pins[weights] == 0:
                del self._pins[weights]
                if weights in self._old:
                    self._old.remove(weights)
                    self._retire(weights.number)

    def put(self, name: str, weights: Weights | None) -> None:
        """Make this the adapter's present version; None = an adapter that changes nothing."""
        with self._lock:
            old = self._current.get(name)
            self._current[name] = weights
            self._leave(old)

    def remove(self, name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError."""
        with self._lock:
            old = self._known(name)
            del self._current[name]
            self._leave(old)

    def _leave(self, weights: Weights | None) -> None:
        if weights is None:
            return
        if weights in self._pins:
            self._old.add(weights)
        else:
            self._retire(weights.number)

    def _known(self, name: str) -> Weights | None:
        if name not in self._current:
            known = ", ".join(map(repr, self._current)) or "none; add one with add_adapter_to_model"
            raise AdapterError(f"unknown adapter {name!r}; known adapters: {known}")
        return self._current[name]
