"""Putting and getting values, each byte of which is checked."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks.queue import payload
from benchmarks.queue.work.timing import timed, wait_for

SAMPLES = 256
FIELD = "tokens"


def single_puts(system: Any, step: int, count: int, size: int) -> list[float]:
    """Milliseconds of each of `count` puts of one row; the rows are read back and checked, then cleared."""
    values = payload.rows(0, count, size)
    data = [system.prepared({FIELD: values[row : row + 1]}) for row in range(count)]
    times = [timed(lambda each=each: system.put(each, step))[0] for each in data]
    _consume(system, step, values)
    return times


def put_rounds(system: Any, info: Any, size: int, first_step: int, rounds: int) -> list[float]:
    """MB/s of putting 256 rows at once, round after round: put, fetch, check, consume, clear; with a new client."""
    system.attach(info)
    speeds = []
    for number in range(rounds):
        values = payload.rows(number * SAMPLES, SAMPLES, size)
        data = system.prepared({FIELD: values})
        milliseconds, _ = timed(lambda data=data, step=first_step + number: system.put(data, step))
        speeds.append(SAMPLES * size / 1000 / milliseconds)
        _consume(system, first_step + number, values)
    return speeds


def fetches(system: Any, size: int, step: int, times: int) -> list[float]:
    """MB/s of get_data and a sum over every byte, of 256 rows that were put one at a time, in a shuffled order."""
    values = payload.rows(step * SAMPLES, SAMPLES, size)
    for row in range(SAMPLES):
        system.put(system.prepared({FIELD: values[row : row + 1]}), step)
    meta = system.get_meta([FIELD], SAMPLES, step, "train")
    expected, put = payload.total(values), payload.checksums(values)
    numbers, speeds = np.array(payload.numbers(system.get_data(meta)[FIELD])), []
    for number in range(times):
        order = np.random.default_rng(number).permutation(SAMPLES)
        shuffled = system.pick(meta, order.tolist())
        milliseconds, total = timed(lambda shuffled=shuffled: payload.total(system.get_data(shuffled)[FIELD]))
        speeds.append(SAMPLES * size / 1000 / milliseconds)
        assert total == expected, "the sum over every byte is not that of what was put"
    last = system.get_data(shuffled)[FIELD]
    payload.check(last, put)
    assert payload.numbers(last) == numbers[order].tolist(), "the rows are not in the order that was asked for"
    system.done(meta)
    system.clear(step)
    return speeds


def produce(system: Any, step: int, first: int, count: int, size: int, start_at: float) -> dict[str, int]:
    """Put `count` rows one at a time from `start_at` on; their checksums by number."""
    values = payload.rows(first, count, size)
    data = [system.prepared({FIELD: values[row : row + 1]}) for row in range(count)]
    wait_for(start_at)
    for each in data:
        system.put(each, step)
    return {str(number): checksum for number, checksum in payload.checksums(values).items()}


def consume(system: Any, step: int, count: int, batch: int, start_at: float) -> dict[str, Any]:
    """Get `count` rows in batches as they come, with their values; rows per second, and their checksums by number."""
    got: list[torch.Tensor] = []
    wait_for(start_at)
    for _ in range(count // batch):
        meta = system.get_meta([FIELD], batch, step, "train")
        got.append(system.get_data(meta)[FIELD])
        system.done(meta)
    seconds = time.monotonic() - start_at
    rows = [row for each in got for row in each]
    sums = payload.checksums(rows)
    assert len(sums) == len(rows) == count, "a row came twice"
    system.clear(step)
    return {"per_s": count / seconds, "checksums": {str(number): checksum for number, checksum in sums.items()}}


def _consume(system: Any, step: int, values: torch.Tensor) -> None:
    meta = system.get_meta([FIELD], len(values), step, "train")
    payload.check(system.get_data(meta)[FIELD], payload.checksums(values))
    system.done(meta)
    system.clear(step)
