"""A queue client that knows how long it was inside its calls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transfer_queue import BatchMeta, TransferQueueClient


class TimedClient(TransferQueueClient):
    """Adds up the wall time of put, get, get_meta, get_data and ack in ``seconds``; waits are part of it."""

    seconds: float = 0.0

    def put(self, *args: Any, **kwargs: Any) -> BatchMeta:
        """As TransferQueueClient.put."""
        with self._timed():
            return super().put(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> tuple[BatchMeta, Any]:
        """As TransferQueueClient.get."""
        with self._timed():
            return super().get(*args, **kwargs)

    def get_meta(self, *args: Any, **kwargs: Any) -> BatchMeta:
        """As TransferQueueClient.get_meta."""
        with self._timed():
            return super().get_meta(*args, **kwargs)

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """As TransferQueueClient.get_data."""
        with self._timed():
            return super().get_data(*args, **kwargs)

    def ack(self, *args: Any, **kwargs: Any) -> None:
        """As TransferQueueClient.ack."""
        with self._timed():
            super().ack(*args, **kwargs)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
