"""Many clients at once. Ours only."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.queue import payload
from benchmarks.queue.work.timing import wait_for

FIELD = "tokens"
SIZE = 1024
LEASE_S = 60.0


def cycles(system: Any, step: int, clients: int, count: int, first: int, start_at: float) -> dict[str, Any]:
    """Each of `clients` clients does `count` cycles of put, get_meta, get_data and ack of one row.

    Gives each client's seconds, every error, and the checksums of the rows put and got (by any client).
    """
    seconds: list[float] = []
    errors: list[str] = []
    put: dict[str, int] = {}
    got: list[tuple[int, int]] = []

    def one(number: int) -> None:
        try:
            values = payload.rows(first + number * count, count, SIZE)
            put.update({str(row): checksum for row, checksum in payload.checksums(values).items()})
            with system.another() as client:
                wait_for(start_at)
                for cycle in range(count):
                    client.put({FIELD: values[cycle : cycle + 1]}, global_step=step)
                    meta = client.get_meta([FIELD], 1, step, "train", lease_s=LEASE_S)
                    got.extend(payload.checksums(client.get_data(meta)[FIELD]).items())
                    client.ack(meta)
                seconds.append(time.monotonic() - start_at)
        except Exception as error:  # noqa: BLE001 - a refused client is the result
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": seconds, "errors": errors, "put": put, "got": [[str(row), checksum] for row, checksum in got]}
