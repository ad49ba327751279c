"""`get` and `put(ack=True)`: what two calls do, in one; both halves or neither."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transfer_queue import (
    DPGroupError,
    FieldError,
    LeaseError,
    StepClearedError,
    TransferQueueClient,
    TransferQueueController,
)

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]
LARGE = 64 << 10


@pytest.mark.parametrize("storage", ["shm", "memory"])
@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("lease_s", [30, None])
def test_get_gives_the_rows_and_their_values(
    start: Start, connect: Connect, storage: str, size: int, lease_s: float | None
) -> None:
    client = connect(start(storage=storage))
    values = np.arange(4 * size, dtype=np.int32).reshape(4, size)
    client.put({"x": values, "name": ["a", "b", "c", "d"]}, global_step=0)
    asked = client.stats().requests.get("get_data", 0)

    for _ in range(2):
        meta, data = client.get(["x", "name"], 2, 0, "train", lease_s=lease_s, plain=True)
        assert np.array_equal(np.asarray(data["x"]), values[meta.global_indexes])
        assert data["name"] == ["abcd"[row] for row in meta.global_indexes]
        assert (meta.lease is None) == (lease_s is None)
        if lease_s is not None:
            client.ack(meta)

    assert client.stats().tasks["train"].consumed == 4
    assert client.stats().requests.get("get_data", 0) - asked == (0 if lease_s else 2)


def test_async_get(start: Start) -> None:
    async def run() -> Any:
        async with TransferQueueClient("a", start().get_info()) as client:
            await client.async_put({"x": ["1", "2"]}, global_step=0)
            meta, data = await client.async_get(["x"], 2, 0, "train", lease_s=9, plain=True)
            await client.async_put({"y": [1, 2]}, metadata=meta, ack=True)
            return data["x"], (await client.async_stats()).tasks["train"].consumed

    assert asyncio.run(run()) == (["1", "2"], 2)


def test_what_get_could_not_read_goes_back(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(start())
    client.put({"x": ["1"]}, global_step=0)

    def broken(*_: Any, **__: Any) -> Any:
        raise FieldError("cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr("transfer_queue.client.decode_fields", broken)
        with pytest.raises(FieldError, match="cannot be read"):
            client.get(["x"], 1, 0, "train", lease_s=30)

    assert client.get(["x"], 1, 0, "train", lease_s=30, timeout_s=1)[1]["x"][0] == "1"


def test_a_put_that_acks(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1", "2"]}, global_step=0)
    meta = client.get_meta(["x"], 2, 0, "train", lease_s=30)
    client.put({"y": [1, 2]}, metadata=meta, ack=True)

    assert client.stats().tasks["train"].consumed == 2
    with pytest.raises(LeaseError, match="acknowledged"):
        client.release(meta)
    assert client.get(["y"], 2, 0, "next", lease_s=30, plain=True)[1]["y"] == [1, 2]


def test_a_put_that_acks_does_both_or_neither(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=1))
    client.put({"x": ["1", "2"]}, global_step=0)
    params = {"dp_rank": 0, "dp_size": 2, "dp_group_id": "g"}
    first = client.get_meta(["x"], 1, 0, "train", sampler_params=params, lease_s=30)
    with pytest.raises(DPGroupError, match="no vote"):
        client.put({"y": [1]}, metadata=_as_rank(first, 7), ack=True)
    with pytest.raises(FieldError):
        client.put({"x": ["again"]}, metadata=first, ack=True)  # written once only: no vote either

    stand = client.stats().tasks["train"]
    assert (stand.leased, stand.consumed) == (2, 0)
    second = client.get_meta(["x"], 1, 0, "train", sampler_params={**params, "dp_rank": 1}, lease_s=30)
    client.put({"y": [1]}, metadata=first, ack=True)
    assert client.stats().tasks["train"].consumed == 0
    client.put({"y": [2]}, metadata=second, ack=True)
    assert client.stats().tasks["train"].consumed == 2


def test_a_put_acks_only_the_lease_under_which_it_writes(start: Start, connect: Connect) -> None:
    client = connect(start())
    rows = client.put({"x": ["1"]}, global_step=0)
    with pytest.raises(LeaseError, match="put with ack needs rows with a lease"):
        client.put({"x": ["1"]}, global_step=0, ack=True)
    with pytest.raises(LeaseError, match="put with ack needs rows with a lease"):
        client.put({"y": [1]}, metadata=rows, ack=True)
    assert client.stats().tasks == {}


def test_the_last_ack_of_a_step_that_clears_itself_may_come_with_its_fields(start: Start, connect: Connect) -> None:
    client = connect(start(tasks=["train"]))
    client.put({"x": ["1"]}, global_step=0)
    meta = client.get_meta(["x"], 1, 0, "train", lease_s=30)
    client.put({"y": [1]}, metadata=meta, ack=True)

    assert client.stats().stored_bytes == 0
    with pytest.raises(StepClearedError):
        client.get_data(meta)


def _as_rank(meta: Any, rank: int) -> Any:
    return type(meta)(**{**{name: getattr(meta, name) for name in meta.__struct_fields__}, "dp_rank": rank})
