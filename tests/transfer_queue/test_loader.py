"""`StreamingDataLoader`: every row once, in this process and with workers; nothing is kept when the loop ends early."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

from tests.transfer_queue.test_client import in_background, wait_for_waiting
from transfer_queue import (
    ConfigurationError,
    ExhaustedError,
    LeaseError,
    NotReadyError,
    TransferQueueClient,
    TransferQueueController,
)
from transfer_queue.loader import StreamingDataLoader
from transfer_queue.queue_dataset import Batch, QueueDataset

WORKERS = [(0, None), (2, "fork"), (2, "spawn")]
ROWS = 16


@pytest.fixture(scope="module")
def controller() -> Iterator[TransferQueueController]:
    with TransferQueueController.start(global_batch_size=ROWS // 2, num_n_samples=2, num_global_batch=2) as running:
        yield running


@pytest.fixture
def client(controller: TransferQueueController) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", controller.get_info()) as one:
        for step in one.stats().partitions:
            one.clear(step, force=True)
        yield one


def put(client: TransferQueueClient, step: int = 0, rows: int = ROWS) -> None:
    """Dense, ragged and text fields."""
    client.put(
        {
            "n": torch.arange(rows),
            "ids": [torch.arange(1 + i % 3) for i in range(rows)],
            "text": [f"row {i}" for i in range(rows)],
        },
        global_step=step,
    )


def dataset(
    controller: TransferQueueController, batch_size: int = 4, step: int | None = 0, **more: Any
) -> QueueDataset:
    return QueueDataset(
        controller.get_info(),
        ["n", "ids", "text"],
        batch_size,
        "train",
        global_step=step,
        **{"timeout_s": 30.0, **more},
    )


def counts(client: TransferQueueClient) -> tuple[int, int, int]:
    """Rows of the task that are ready, leased and consumed."""
    stand = client.stats().tasks["train"]
    return stand.ready, stand.leased, stand.consumed


def same_rows(batch: Batch) -> bool:
    """Whether the fields of each row belong together."""
    ids = [len(each) for each in batch["ids"].unbind()]
    return list(batch["text"]) == [f"row {n}" for n in batch["n"].tolist()] and ids == [
        1 + n % 3 for n in batch["n"].tolist()
    ]


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_every_row_comes_once_and_is_acknowledged(
    controller: TransferQueueController, client: TransferQueueClient, workers: int, context: str | None
) -> None:
    put(client)
    got = []
    for batch in StreamingDataLoader(dataset(controller), num_workers=workers, multiprocessing_context=context):
        assert len(batch) == 4
        assert same_rows(batch)
        assert all(a == b for a, b in zip(batch.meta.group_ids[::2], batch.meta.group_ids[1::2], strict=True))
        got += batch["n"].tolist()

    assert sorted(got) == list(range(ROWS))
    assert counts(client) == (0, 0, ROWS)


def test_a_batch_is_acknowledged_when_the_next_is_asked_for_or_before(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    stream = iter(StreamingDataLoader(dataset(controller)))
    next(stream)
    assert counts(client) == (12, 4, 0)
    second = next(stream)
    assert counts(client) == (8, 4, 4)
    second.ack()
    second.ack()
    assert counts(client) == (8, 0, 8)
    third = next(stream)
    third.release()
    assert counts(client) == (8, 0, 8)
    next(stream).drop("odd")
    assert client.stats().tasks["train"].dropped == {"odd": 4}


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_what_was_fetched_and_not_used_goes_back_when_the_loop_ends_early(
    controller: TransferQueueController, client: TransferQueueClient, workers: int, context: str | None
) -> None:
    put(client)
    with StreamingDataLoader(dataset(controller, 2), num_workers=workers, multiprocessing_context=context) as loader:
        for i, _ in enumerate(loader):
            if i == 2:
                break

    assert counts(client) == (ROWS - 4, 0, 4)


def test_a_loop_that_raises_gives_its_batch_back(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    with suppress(ZeroDivisionError), StreamingDataLoader(dataset(controller)) as loader:
        for _ in loader:
            raise ZeroDivisionError

    assert counts(client) == (ROWS, 0, 0)


def test_workers_that_wait_for_rows_leave_at_once(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client, rows=4)
    with StreamingDataLoader(dataset(controller), num_workers=2, multiprocessing_context="fork") as loader:
        stream = iter(loader)
        next(stream)
        wait_for_waiting(client, "train", 2)
        began = time.monotonic()
    assert time.monotonic() - began < 4  # torch alone waits 5 s for each worker

    assert counts(client) == (4, 0, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_batch_of_a_step_may_be_smaller(
    controller: TransferQueueController, client: TransferQueueClient, workers: int
) -> None:
    put(client)
    loader = StreamingDataLoader(dataset(controller, 6, get_n_samples=True), num_workers=workers)
    sizes = [len(batch) for batch in loader]

    assert sorted(sizes) == [4, 6, 6]
    assert counts(client) == (0, 0, ROWS)


def test_the_last_batch_may_be_kept_for_longer_than_the_workers_live(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    for batch in StreamingDataLoader(dataset(controller, ROWS, steps=1), num_workers=1):
        time.sleep(1.0)
        assert same_rows(batch)

    assert counts(client) == (0, 0, ROWS)


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_count_the_batches_of_all_workers(
    controller: TransferQueueController, client: TransferQueueClient, workers: int
) -> None:
    put(client, 0)
    put(client, 1)
    loader = StreamingDataLoader(dataset(controller, 4, None, steps=5), num_workers=workers)

    assert len(list(loader)) == 5
    assert counts(client) == (12, 0, 20)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_come_through_in_their_own_words(
    controller: TransferQueueController, client: TransferQueueClient, workers: int
) -> None:
    put(client, rows=2)
    loader = StreamingDataLoader(dataset(controller, timeout_s=0.5), num_workers=workers)
    with pytest.raises(NotReadyError, match=r"^get_meta waited .*: 2 ready; 14 not put to step 0 yet$"):
        list(loader)
    everything = StreamingDataLoader(dataset(controller, 64, None), num_workers=workers)
    with pytest.raises(ExhaustedError, match="can never get 64 rows of all steps together"):
        list(everything)


def test_a_step_that_is_cleared_ends_the_loop(controller: TransferQueueController, client: TransferQueueClient) -> None:
    put(client, rows=2)
    result = in_background(lambda: list(StreamingDataLoader(dataset(controller))))
    wait_for_waiting(client, "train")
    client.clear(0)

    assert result() == []


@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_rows_of_a_worker_that_was_killed_come_back(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    with StreamingDataLoader(dataset(controller, 2, lease_s=3.0), num_workers=2) as loader:
        stream = iter(loader)
        next(stream)
        with pytest.raises(RuntimeError, match=r"DataLoader worker.* (killed|exited)"):
            # torch raises it from a signal handler, so anywhere in this process: also where torch itself has opened
            # files, to see whether it still can, which then nobody closes.
            os.kill(next(worker.pid or 0 for worker in multiprocessing.active_children()), signal.SIGKILL)
            for _ in range(ROWS):
                next(stream)
    gc.collect()
    consumed = counts(client)[2]  # what the dead worker had not reported comes back when its lease expires

    assert sum(len(batch) for batch in StreamingDataLoader(dataset(controller, 2))) == ROWS - consumed


def test_a_worker_killed_with_its_parent_gives_rows_back_by_expiry(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    child = os.fork()
    if child == 0:
        stream = iter(StreamingDataLoader(dataset(controller, 2, lease_s=1.0), num_workers=0))
        next(stream)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    got = [row for batch in StreamingDataLoader(dataset(controller, 2)) for row in batch["n"].tolist()]

    assert sorted(got) == list(range(ROWS))


def test_a_batch_that_waited_too_long_is_passed_over_and_its_rows_come_again(
    controller: TransferQueueController, client: TransferQueueClient, caplog: pytest.LogCaptureFixture
) -> None:
    put(client)
    got: list[int] = []
    for batch in StreamingDataLoader(dataset(controller, 4, lease_s=0.5), num_workers=1):
        if not got:
            batch.ack()
            time.sleep(1.0)
        got += batch["n"].tolist()

    assert sorted(got) == list(range(ROWS))
    assert "is passed over: lease" in caplog.text
    assert counts(client) == (0, 0, ROWS)


def test_a_loop_that_needs_longer_than_its_lease_is_told(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    stream = iter(StreamingDataLoader(dataset(controller, lease_s=0.2)))
    next(stream)
    time.sleep(0.5)
    with pytest.raises(LeaseError, match="expired; its rows went back"):
        next(stream)


def dp_params(number: int) -> dict[str, Any]:
    return {"dp_rank": 0, "dp_size": 1, "dp_group_id": f"batch {number}"}


def test_parameters_may_depend_on_the_number_of_the_batch(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client)
    loader = StreamingDataLoader(dataset(controller, sampler_params=dp_params), num_workers=1)

    assert sorted(row for batch in loader for row in batch["n"].tolist()) == list(range(ROWS))
    with pytest.raises(ConfigurationError, match="num_workers=2 would hand DP groups"):
        StreamingDataLoader(dataset(controller, sampler_params=dp_params), num_workers=2)
    with pytest.raises(ConfigurationError, match="steps=-1"):
        dataset(controller, steps=-1)


def test_a_batch_of_a_plain_data_loader_is_acknowledged_by_whoever_has_a_client(
    controller: TransferQueueController, client: TransferQueueClient
) -> None:
    put(client, rows=4)
    plain: Any = torch.utils.data.DataLoader(
        dataset(controller, steps=1), batch_size=None, num_workers=1, collate_fn=as_it_is
    )
    for batch in plain:
        with pytest.raises(ConfigurationError, match=r"client\.ack\(batch\.meta\)"):
            batch.ack()
        client.ack(batch.meta)

    assert counts(client) == (0, 0, 4)


def as_it_is(item: Any) -> Any:
    return item
