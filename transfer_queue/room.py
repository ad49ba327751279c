"""Back-pressure: puts of new rows that wait for a partition or for bytes, first come first served."""

from __future__ import annotations

from transfer_queue.errors import FieldError, StepClearedError, TransferQueueError
from transfer_queue.ledger import Ledger
from transfer_queue.ledger.placing import shares
from transfer_queue.waiting import Producer, Recycler

NEVER = 1 << 62
"""Later than every step."""


class Room:
    """Who waits for room. `capacity_bytes` bounds the values of all rows (None: only partitions are bounded).

    It holds new rows back. More fields of rows that exist are always let in: they are what lets rows be consumed. So
    are rows of an older step than that for which others wait: only when it is complete and consumed does room come.
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

    def has_for(self, producer: Producer, ledger: Ledger, stored: int) -> bool:
        """Whether its bytes fit now, and no earlier put waits for bytes too whose step is as old."""
        if self.capacity_bytes is None:
            return True
        if self._lacks_bytes(producer, stored):
            return False
        self._drop_over()
        short = [each for each in self.producers if each is not producer and self._lacks_bytes(each, stored)]
        if not short:
            return True
        _, last = _steps_of(producer, ledger)
        return not any(_steps_of(each, ledger)[0] <= last for each in short)

    def wait(self, producer: Producer, ledger: Ledger) -> None:
        """The put waits behind the others."""
        _note_partition(producer, ledger)
        self.producers.append(producer)
        self._tried = (-1, -1)

    def ready(self, ledger: Ledger, stored: int) -> list[Producer]:
        """The puts to try now, in order of arrival; none if no room came since the last time."""
        self._drop_over()
        if not self.producers or self._tried == (ledger.room_version, stored):
            return []
        self._tried = (ledger.room_version, stored)
        for producer in self.producers:
            _note_partition(producer, ledger)
        if self.capacity_bytes is None:
            return self.producers[:]
        ended = [each for each in self.producers if _cleared(each, ledger)]
        return [*ended, *self._that_fit(ledger, stored, [each for each in self.producers if each not in ended])]

    def _that_fit(self, ledger: Ledger, stored: int, producers: list[Producer]) -> list[Producer]:
        found: list[Producer] = []
        barred = NEVER  # from this step on, later and smaller ones must not starve one that lacks bytes
        for producer in producers:
            if barred < NEVER and not _older_has_room(ledger, barred, producers):
                break
            first, last = _steps_of(producer, ledger)
            if first < NEVER and self._lacks_bytes(producer, stored):
                barred = min(barred, first)
            elif last < barred:
                found.append(producer)
                stored += producer.size
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
        if self.capacity_bytes is not None and _steps_of(producer, ledger)[0] < NEVER:
            return f"{head}earlier puts wait for bytes and go first: let consumers take and clear rows"
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


def check_not_cleared(producer: Producer, ledger: Ledger) -> None:
    """`StepClearedError` for a put whose step was cleared while it waited: nobody waits for rows of that step now."""
    if _cleared(producer, ledger):
        raise StepClearedError(f"step {producer.put.step} was cleared while a put of {producer.put.rows} rows waited")


def _cleared(producer: Producer, ledger: Ledger) -> bool:
    return producer.serial is not None and producer.serial not in ledger.steps.by_serial


def _note_partition(producer: Producer, ledger: Ledger) -> None:
    if producer.serial is None and producer.put.step is not None:
        partition = ledger.steps.alive.get(producer.put.step)
        producer.serial = partition.serial if partition is not None else None


def _steps_of(producer: Producer, ledger: Ledger) -> tuple[int, int]:
    """The first and the last step of its rows, were they put now; `NEVER` while they wait for a partition."""
    put = producer.put
    try:
        found = shares(ledger.steps, put.rows, put.group_ids, put.step)
    except TransferQueueError:
        return NEVER, -1  # it fails when it is tried, which is now
    steps = [share.step for share in found or ()]
    return (min(steps), max(steps)) if steps else (NEVER, NEVER)


def _older_has_room(ledger: Ledger, step: int, producers: list[Producer]) -> bool:
    """Whether one of these puts may go into an older step; asked before each of them is looked at."""
    steps = ledger.steps
    if any(each.step < step and each.produced < each.seats.rows_ever for each in steps.in_order()):
        return True
    begins = len(steps.alive) < steps.shape.num_global_batch
    return begins and any(each.put.step is not None and each.put.step < step for each in producers)
