"""Back-pressure: puts of new rows that wait for a partition or for bytes, first come first served."""

from __future__ import annotations

from transfer_queue.errors import FieldError
from transfer_queue.ledger import Ledger
from transfer_queue.waiting import Producer, Recycler


class Room:
    """Who waits for room. `capacity_bytes` bounds the values of all rows (None: only partitions are bounded).

    It holds new rows back. More fields of rows that exist are always let in: they are what lets rows be consumed.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.producers: list[Producer] = []
        self.recyclers: list[Recycler] = []
        self._tried: tuple[int, int] = (-1, -1)

    @property
    def waiting(self) -> list[Producer]:
        """The puts that wait, in order of arrival."""
        self._drop_over()
        return self.producers

    def check(self, size: int) -> None:
        """`FieldError` for a put that could never fit."""
        if self.capacity_bytes is not None and size > self.capacity_bytes:
            raise FieldError(
                f"this put brings {size} bytes, more than capacity_bytes={self.capacity_bytes} of the whole queue: put "
                "fewer rows at once, or start the controller with a larger capacity_bytes"
            )

    def has_for(self, producer: Producer, stored: int) -> bool:
        """Whether its bytes fit now, and no earlier put waits for bytes too."""
        if self.capacity_bytes is None:
            return True
        self._drop_over()
        earlier = any(each is not producer and self._lacks_bytes(each, stored) for each in self.producers)
        return not earlier and not self._lacks_bytes(producer, stored)

    def wait(self, producer: Producer) -> None:
        """The put waits behind the others."""
        self.producers.append(producer)
        self._tried = (-1, -1)

    def ready(self, ledger: Ledger, stored: int) -> list[Producer]:
        """The puts to try now, in order of arrival; none if no room came since the last time."""
        self._drop_over()
        if not self.producers or self._tried == (ledger.room_version, stored):
            return []
        self._tried = (ledger.room_version, stored)
        found: list[Producer] = []
        for producer in self.producers:
            if self._lacks_bytes(producer, stored + sum(each.size for each in found)):
                break  # later and smaller ones must not starve it
            found.append(producer)
        return found

    def why_full(self, producer: Producer, waited: float, ledger: Ledger, stored: int) -> str:
        """The sentence for a put whose deadline came."""
        where = "" if producer.put.step is None else f" into step {producer.put.step}"
        head = f"put of {producer.put.rows} rows{where} waited {waited:.1f} s: "
        if self._lacks_bytes(producer, stored):
            return (
                f"{head}it brings {producer.size} bytes, and {stored} of capacity_bytes={self.capacity_bytes} are "
                "taken: let consumers take and clear rows, or start the controller with a larger capacity_bytes"
            )
        alive = [partition.step for partition in ledger.steps.in_order()]
        return (
            f"{head}all num_global_batch={ledger.shape.num_global_batch} partitions are alive (steps {alive}); clear "
            "one, let its tasks consume it (with tasks=), or start the controller with a larger num_global_batch"
        )

    def _lacks_bytes(self, producer: Producer, stored: int) -> bool:
        return self.capacity_bytes is not None and stored + producer.size > self.capacity_bytes

    def _drop_over(self) -> None:
        if any(each.over for each in self.producers):
            self.producers = [each for each in self.producers if not each.over]
            self._tried = (-1, -1)  # who waited behind one that is gone may be first now
