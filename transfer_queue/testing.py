"""`check_sampler`: for authors of samplers, everything that a controller relies on, in one call of one test."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transfer_queue.client import TransferQueueClient
from transfer_queue.controller import TransferQueueController
from transfer_queue.errors import ExhaustedError, NotReadyError, SamplerError, TransferQueueError
from transfer_queue.meta import BatchMeta
from transfer_queue.sampler_contract import Contract, MakeValue, any_length, random_offer
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.built_in import DPSampler
from transfer_queue.samplers.travel import SamplerLike, instance_of

TASK = "check"
PROMPTS = 8
"""Groups of the one step that a real controller serves."""
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was tried: random partitions and the rows chosen there; rows that a real controller served and dropped."""

    sampler: str
    rounds: int
    rows_chosen: int
    rows_served: int
    rows_rejected: int


def check_sampler(
    sampler: SamplerLike,
    *,
    num_n_samples: int = 1,
    rounds: int = 200,
    seed: int = 0,
    sampler_params: Mapping[str, Any] | None = None,
    values: Mapping[str, MakeValue] | None = None,
) -> Report:
    """Try a sampler against random partitions and in a real controller; `SamplerError` says what it did wrong.

    It must return rows that were offered to it, ready ones only, none twice, at most as many as asked for, whole
    groups where those are asked for; leave its arguments alone; answer equal arguments equally (unless its class says
    `deterministic = False`); survive a partition without rows; reject only rows that it may; travel as import path
    and arguments; and serve every row of a real controller once, alone and to two DP ranks.

    `sampler_params` are passed to it as a consumer's would be; `values` makes, for fields of `value_fields`, the value
    of one row from a `random.Random` (without it: whole numbers from 1 to 1000). `error.details["breaches"]` lists the
    sentences of the message. A sampler that lets rows wait for ever on purpose cannot pass with such values.
    """
    made, params, values = instance_of(sampler), dict(sampler_params or {}), values or {}
    contract, rng = Contract(made), random.Random(seed)
    offers = [random_offer(rng, made, num_n_samples, params, values) for _ in range(rounds)]
    for offer in offers:
        contract.obeys(offer)
        contract.empty(offer)
    served = rejected = 0
    if contract.travels(offers) and not contract.breaches:
        served, rejected = _serve(contract, made, num_n_samples, params, values, rng)
    breaches = list(contract.breaches.values())
    if breaches:
        raise SamplerError("\n".join(breaches), {"breaches": breaches})
    return Report(repr(made), rounds, contract.served, served, rejected)


def _serve(
    contract: Contract,
    sampler: BaseSampler,
    num_n_samples: int,
    params: Mapping[str, Any],
    values: Mapping[str, MakeValue],
    rng: random.Random,
) -> tuple[int, int]:
    """Let a real controller serve a step to a lone consumer and one to two ranks; rows served and rows rejected."""
    ranks = sampler.dp_size if type(sampler) is DPSampler else 2
    chosen = None if type(sampler) is DPSampler else {TASK: sampler}
    served = rejected = 0
    try:
        with (
            TransferQueueController.start(
                global_batch_size=PROMPTS * ranks,
                num_n_samples=num_n_samples,
                task_samplers=chosen,
                sampler_timeout_s=PATIENCE_S,
            ) as controller,
            TransferQueueClient(TASK, controller.get_info()) as client,
        ):
            for step, size in enumerate((1, ranks)):
                _put(client, step, PROMPTS * ranks * num_n_samples, sampler.value_fields, values, rng)
                consumer = _Consumer(client, step, sampler.whole_groups, num_n_samples, params)
                got = consumer.take_all(size)
                dropped = sum(client.stats().tasks[TASK].dropped.values())
                _compare(contract, got, dropped, PROMPTS * ranks * num_n_samples, consumer.last_words)
                served, rejected = served + len(got), rejected + dropped
                if contract.breaches:
                    break
                client.clear(step, force=True)
    except TransferQueueError as error:
        contract.breach("controller", f"in a real controller: {error}")
    return served, rejected


def _put(
    client: TransferQueueClient,
    step: int,
    rows: int,
    value_fields: Sequence[str],
    values: Mapping[str, MakeValue],
    rng: random.Random,
) -> None:
    """Every row in two puts, in an order of its own for the second."""
    there = client.put({"x": list(range(rows))}, global_step=step)
    order = rng.sample(there.samples, rows)
    for half in (order[: rows // 2], order[rows // 2 :]):
        meta = BatchMeta([row.global_index for row in half], ["x"], [step] * len(half), [row.group_id for row in half])
        fields = {name: [values.get(name, any_length)(rng) for _ in half] for name in value_fields}
        if half:
            client.put({"y": list(range(len(half))), **fields}, metadata=meta)


class _Consumer:
    """Takes the rows of one step until there are none; `last_words` say why there was nothing more."""

    def __init__(
        self, client: TransferQueueClient, step: int, whole_groups: bool, num_n_samples: int, params: Mapping[str, Any]
    ) -> None:
        self._client, self._step, self._params = client, step, params
        self._unit = num_n_samples if whole_groups else 1
        self.last_words = ""

    def take_all(self, ranks: int) -> list[int]:
        """The rows that `ranks` ranks got, one batch after the other, and at last what is left unit by unit."""
        got: list[int] = []
        for size, count in ((2 * self._unit, ranks), (self._unit, 1)):
            while batch := self._take(size, count, len(got)):
                got += batch
        return got

    def _take(self, size: int, ranks: int, number: int) -> list[int]:
        got: list[int] = []
        for rank in range(ranks):
            place = {"dp_rank": rank, "dp_size": ranks, "dp_group_id": number} if ranks > 1 else {}
            try:
                meta = self._client.get_meta(
                    ["x", "y"], size, self._step, TASK, self._unit > 1,
                    {**self._params, **place} or None, lease_s=60, timeout_s=PATIENCE_S,
                )  # fmt: skip
            except (ExhaustedError, NotReadyError) as error:
                self.last_words = str(error)
                return got
            got += meta.global_indexes
            self._client.ack(meta)
        return got


def _compare(contract: Contract, got: list[int], dropped: int, put: int, last_words: str) -> None:
    if len(set(got)) < len(got):
        contract.breach("twice", f"a real controller served {len(got) - len(set(got))} rows twice")
    if len(set(got)) + dropped < put:
        contract.breach(
            "lost",
            f"of {put} rows in a real controller it served {len(set(got))} and rejected {dropped}, and left "
            f"{put - dropped - len(set(got))} for ever: {last_words}",
        )
