"""get_meta among rows of which half are not ready, scattered, and a tenth are leased."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.queue.work.timing import percentile, timed

GROUP = 8
BATCH = 32
CHUNK = 100_000
FIELDS = ["prompt", "response"]


def fill(system: Any, rows: int, step: int) -> float:
    """Put `rows` prompts and half as many responses; the seconds it took.

    45 % of the groups are complete and a tenth of the other rows have a response too, so that half of the rows are
    ready whatever the sampler, and only some of them in whole groups.
    """
    ready = _ready(rows)
    milliseconds = 0.0
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        places = np.flatnonzero(ready[first : first + count]).tolist()
        prompts = system.prepared({"prompt": torch.arange(first, first + count)[:, None]})
        responses = system.prepared({"response": torch.tensor(places)[:, None]})
        took, meta = timed(lambda prompts=prompts: system.put(prompts, step))
        chosen = system.pick(meta, places)
        milliseconds += took + timed(lambda chosen=chosen, responses=responses: system.fill(chosen, responses))[0]
    return milliseconds / 1000


def _ready(rows: int) -> np.ndarray:
    random = np.random.default_rng(rows)
    groups = rows // GROUP
    whole = random.permutation(groups) < 0.45 * groups
    ready = np.repeat(whole, GROUP)
    others = np.flatnonzero(~ready)
    others = others[others % GROUP != 0]  # the first row of such a group stays without, so that none is whole
    ready[random.choice(others, rows // 2 - int(ready.sum()), replace=False)] = True
    return ready


def get_metas(
    system: Any, rows: int, step: int, task: str, ranks: int, samples: int, rounds: int, calls: int
) -> dict[str, float]:
    """Percentiles of `rounds * calls` calls; every batch is checked for its size, for repeats and for broken groups."""
    times: list[float] = []
    for number in range(rounds):
        name = task if system.gives_back else f"{task}-{number}"
        if number == 0 or not system.gives_back:
            system.take_tenth(FIELDS, rows, step, name)
        metas = []
        for call in range(calls):
            rank = None if ranks == 1 else (call % ranks, ranks, f"{number}-{call // ranks}")
            took, meta = timed(lambda name=name, rank=rank: system.get_meta(FIELDS, BATCH, step, name, rank))
            times.append(took)
            metas.append(meta)
        _check(metas, samples, shared=ranks > 1 and not system.gives_back)
        system.give_back(metas)
    return {"p50": percentile(times, 50), "p99": percentile(times, 99), "calls": len(times)}


def _check(metas: list[Any], samples: int, shared: bool) -> None:
    """`shared`: the peer serves the same rows to several ranks, so that repeats say nothing."""
    indexes = [index for meta in metas for index in meta.global_indexes]
    assert all(len(meta) == BATCH for meta in metas), "a batch came with another size than was asked for"
    assert shared or len(set(indexes)) == len(indexes), "a row was served twice"
    for meta in metas:
        rows = np.asarray(meta.global_indexes).reshape(-1, samples)
        assert (np.diff(rows, axis=1) == 1).all(), "a group was broken"
