"""A controller with a journal may die at any moment: what it acknowledged is there, once, and nothing else is lost."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.soak.points import ARMED, arm, hits
from tests.transfer_queue import samplers_for_tests as made
from tests.transfer_queue.storage.conftest import tiny_memory as tiny_memory
from tests.transfer_queue.test_client import in_background, wait_for_restart, wait_for_waiting
from transfer_queue import (
    ConfigurationError,
    JournalError,
    LeaseError,
    NotReadyError,
    SamplerLostError,
    TransferQueueClient,
    TransferQueueController,
    supervisor,
    wire,
)

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]
POINTS = ("before_write", "in_write", "behind_write", "before_reply", "behind_reply")
LARGE = np.arange(100_000, dtype=np.uint8).reshape(1, -1)


def kill(controller: TransferQueueController) -> None:
    os.kill(controller.pid, 9)


@pytest.fixture(scope="module")
def armed_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TransferQueueController, Path]]:
    """A controller that many tests kill, each with steps and tasks of its own; the file that arms its points."""
    home = tmp_path_factory.mktemp("durable")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ARMED, str(home / "armed"))
        patch.setattr(supervisor, "PROGRAM", "tests.soak.controller")
        patch.setattr(supervisor, "RESTARTS", 1000)
        options = {"global_batch_size": 4, "num_n_samples": 2, "num_global_batch": 1000}
        with TransferQueueController.start(**options, journal_dir=home / "journal") as controller:
            yield controller, home / "armed"


class Killed:
    """A step of the queue, and a point that its controller is killed at by the next request."""

    def __init__(self, controller: TransferQueueController, armed: Path, point: str, step: int) -> None:
        self.client = TransferQueueClient(f"client{step}", controller.get_info())
        self.controller, self.armed, self.point, self.step = controller, armed, point, step
        self.task = f"task{step}"

    def put(self) -> Any:
        return self.client.put({"x": ["a", "b"]}, global_step=self.step)

    def take(self, count: int = 2, lease_s: float | None = 60.0, fields: tuple[str, ...] = ("x",)) -> Any:
        return self.client.get_meta(fields, count, self.step, self.task, lease_s=lease_s, timeout_s=20.0)

    def during(self, call: Callable[[], Any]) -> Any:
        """What the call gives whose controller is killed under it."""
        pid, before = self.controller.pid, hits(self.armed)[self.point]
        arm(self.armed, self.point)
        result = call()
        if self.point == "behind_reply":
            self.client.stats()
        assert hits(self.armed)[self.point] == before + 1
        deadline = time.monotonic() + 20  # the new one serves before the supervisor has heard that it is there
        while self.controller.pid == pid and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.controller.pid != pid
        return result

    @property
    def counts(self) -> wire.TaskStats:
        return self.client.stats().tasks[self.task]


steps = iter(range(1000))


@pytest.fixture(params=POINTS)
def killed(armed_queue: tuple[TransferQueueController, Path], request: pytest.FixtureRequest) -> Iterator[Killed]:
    queue = Killed(*armed_queue, request.param, next(steps))
    yield queue
    queue.client.close()


def test_a_put_is_carried_out_once(killed: Killed) -> None:
    before = killed.client.stats().rows_put_total
    meta = killed.during(killed.put)

    assert killed.client.stats().rows_put_total == before + 2
    assert list(killed.client.get_data(meta)["x"]) == ["a", "b"]
    assert killed.take().global_indexes == meta.global_indexes


def test_a_put_of_large_values_is_carried_out_once(killed: Killed) -> None:
    """The first of a client, so that it is killed while a segment is attached; the second, while values are put."""
    client, backwards = killed.client, LARGE[:, ::-1]
    first = killed.during(lambda: client.put({"large": LARGE}, global_step=killed.step, group_id="a"))
    other = killed.during(lambda: client.put({"large": backwards}, global_step=killed.step, group_id="a"))
    taken = killed.take(fields=("large",))

    assert taken.global_indexes == first.global_indexes + other.global_indexes
    assert (np.asarray(client.get_data(taken)["large"]) == np.concatenate([LARGE, backwards])).all()


def test_rows_are_given_to_one_request_once(killed: Killed) -> None:
    put = killed.put()
    first = killed.during(lambda: killed.take(1, None))
    second = killed.during(lambda: killed.take(1))

    assert first.global_indexes + second.global_indexes == put.global_indexes
    assert (killed.counts.consumed, killed.counts.leased) == (1, 1)


def test_an_ack_is_carried_out_once(killed: Killed) -> None:
    killed.put()
    meta = killed.take()
    killed.during(lambda: killed.client.ack(meta))
    assert killed.counts.consumed == 2
    with pytest.raises(LeaseError, match="acknowledged before"):
        killed.client.ack(meta)


def test_fields_are_put_once(killed: Killed) -> None:
    killed.put()
    meta = killed.take()
    killed.during(lambda: killed.client.put({"y": ["c", "d"]}, metadata=meta))
    killed.client.ack(meta)

    other = killed.client.get_meta(["x", "y"], 2, killed.step, "reader", lease_s=60)
    assert list(killed.client.get_data(other)["y"]) == ["c", "d"]


@pytest.mark.parametrize("how", ["release", "drop", "refill", "extend", "clear"])
def test_every_end_of_a_lease_comes_once(killed: Killed, how: str) -> None:
    killed.put()
    client, meta = killed.client, killed.take()
    dropped = killed.counts.dropped.get("dull", 0)
    calls: dict[str, Callable[[], object]] = {
        "release": lambda: client.release(meta),
        "drop": lambda: client.drop(meta, "dull"),
        "refill": lambda: client.drop(meta, "dull", refill=True),
        "extend": lambda: client.extend(meta, 600.0),
        "clear": lambda: client.clear(killed.step, force=True),
    }
    killed.during(calls[how])
    if how == "release":
        assert killed.take().global_indexes == meta.global_indexes
    elif how == "extend":
        client.ack(meta)
    elif how == "clear":
        assert client.clear(killed.step) is False
    else:
        assert (killed.counts.dropped, killed.counts.leased) == ({"dull": dropped + 2}, 0)


def test_room_is_given_back_once(killed: Killed) -> None:
    client = killed.client
    meta = client.put({"large": np.concatenate([LARGE, LARGE])}, global_step=killed.step)
    segments = client._plane._segments  # type: ignore[attr-defined]
    client.clear(killed.step)
    recycle = wire.Recycle(segments, 20.0)
    ranges = killed.during(lambda: client.request(wire.Recycled, recycle, "recycling")).ranges

    assert [size for _, _, size in ranges] == [200_000]
    assert client.request(wire.Recycled, wire.Recycle(segments), "recycling").ranges == []
    assert meta.global_step == killed.step


def test_a_lease_survives_and_runs_out_later(armed: Path, start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.put({"x": ["a", "b"]})
    kept, late = (client.get_meta(["x"], 1, task_name="train", lease_s=seconds) for seconds in (60.0, 1.0))
    kill(controller)
    client.ack(kept)
    assert client.stats().tasks["train"].leased == 1
    again = client.get_meta(["x"], 1, task_name="train", timeout_s=20)
    assert again.global_indexes == late.global_indexes
    with pytest.raises(LeaseError, match="expired"):
        client.ack(late)


@pytest.mark.parametrize("at", ["meta_waits", "anywhere"])
def test_a_waiting_get_meta_survives(armed: Path, at: str, start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client, other = connect(controller), connect(controller)
    client.put({"x": ["a"]}, global_step=0)
    if at == "meta_waits":
        arm(armed, at)
    waiting = in_background(lambda: client.get_meta(["x"], 2, 0, "train", timeout_s=60))
    wait_for_waiting(other, "train")
    if at == "anywhere":
        kill(controller)
        wait_for_waiting(other, "train")
    other.put({"x": ["b"]}, global_step=0)

    assert len(waiting()) == 2
    wait_for_restart(controller)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_wait_that_went_through_a_restart_ends_when_it_was_to_end(
    asynchronous: bool, start: Start, connect: Connect, tmp_path: Path
) -> None:
    """With the controller's own words about what is missing, not with a client's that nobody answered."""
    controller = start(journal_dir=tmp_path / "journal")
    client, other = connect(controller), connect(controller)
    client.put({"x": ["a"]}, global_step=0)
    wanted: dict[str, Any] = {"data_fields": ["x"], "batch_size": 2, "task_name": "train", "timeout_s": 8.0}
    if asynchronous:
        waiting = in_background(lambda: asyncio.run(client.async_get_meta(**wanted)))  # type: ignore[arg-type]
    else:
        waiting = in_background(lambda: client.get_meta(**wanted))
    wait_for_waiting(other, "train")
    time.sleep(6.0)
    kill(controller)
    with pytest.raises(NotReadyError, match="1 ready"):
        waiting()


@pytest.mark.parametrize("at", ["put_waits", "anywhere"])
def test_a_waiting_put_survives(armed: Path, at: str, start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal", global_batch_size=1)
    client, other = connect(controller), connect(controller)
    client.put({"x": ["a"]})
    if at == "put_waits":
        arm(armed, at)
    waiting = in_background(lambda: client.put({"large": LARGE}, timeout_s=60))
    for killed in range(2):
        for _ in range(1000):
            if other.stats().waiting_producers:
                break
            time.sleep(0.01)
        if at == "anywhere" and not killed:
            kill(controller)
    other.clear(0)
    assert (np.asarray(other.get_data(waiting())["large"]) == LARGE).all()
    wait_for_restart(controller)


def test_samplers_come_back_by_their_import_path(start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.register_sampler("train", made.Documented)
    client.put({"x": ["a", "b", "c"]}, global_step=0)
    kill(controller)

    assert client.get_meta(["x"], 2, 0, "train").global_indexes == [2, 1]
    assert client.get_meta(["x"], 2, 0, "other").global_indexes == [0, 1]


def test_a_sampler_that_cannot_be_made_again_makes_its_task_refuse(
    start: Start, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "samplers_of_yesterday.py"
    module.write_text("from tests.transfer_queue.samplers_for_tests import Documented\nclass Own(Documented): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.register_sampler("train", __import__("samplers_of_yesterday").Own)
    client.put({"x": ["a", "b", "c"]}, global_step=0)
    assert client.get_meta(["x"], 1, 0, "train").global_indexes == [2]
    module.unlink()
    for cached in tmp_path.glob("__pycache__/samplers_of_yesterday*"):
        cached.unlink()
    kill(controller)
    with pytest.raises(SamplerLostError, match=r"task 'train' cannot be served: its sampler did not survive"):
        client.get_meta(["x"], 1, 0, "train")
    assert client.get_meta(["x"], 1, 0, "other").global_indexes == [0]
    client.register_sampler("train", made.Documented)

    assert client.get_meta(["x"], 1, 0, "train").global_indexes == [1]


def test_a_torn_tail_costs_nothing_that_was_acknowledged(start: Start, connect: Connect, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with TransferQueueController.start(global_batch_size=8, journal_dir=journal) as controller:
        connect(controller).put({"x": ["a", "b"]})
    last = sorted(journal.glob("segment-*.log"))[-1]
    with open(last, "ab") as file:
        file.write(b"\x64\0\0\0torn")
    client = connect(start(journal_dir=journal))

    assert list(client.get_data(client.get_meta(["x"], 2, task_name="train"))["x"]) == ["a", "b"]


def test_other_sizes_are_refused_in_one_sentence(start: Start, connect: Connect, tmp_path: Path) -> None:
    with TransferQueueController.start(global_batch_size=8, journal_dir=tmp_path / "journal") as controller:
        connect(controller).put({"x": ["a"]})
    with pytest.raises(JournalError, match="belongs to another queue") as refused:
        start(global_batch_size=4, journal_dir=tmp_path / "journal")
    assert "\n" not in str(refused.value)

    assert connect(start(journal_dir=tmp_path / "journal")).stats().rows_put_total == 1


def test_a_second_controller_is_refused_and_the_first_goes_on(start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.put({"x": ["a"]})
    with pytest.raises(JournalError, match=rf"process {controller.pid} is already writing the journal"):
        start(journal_dir=tmp_path / "journal")

    assert client.put({"x": ["b"]}).global_indexes == [1]


def values(client: TransferQueueClient, meta: Any, fields: list[str]) -> list[Any]:
    data = client.get_data(meta, fields, plain=True)
    return [np.asarray(data[field]).tolist() if field != "text" else list(data[field]) for field in fields]


@pytest.mark.parametrize("storage", ["memory", "shm"])
def test_a_checkpoint_begins_another_queue_byte_for_byte(
    storage: str, start: Start, connect: Connect, tmp_path: Path
) -> None:
    """Rows in arenas, small ones, consumed, dropped and leased ones; the leased ones are free in the other queue."""
    client = connect(start(journal_dir=tmp_path / "journal", num_n_samples=2, num_global_batch=2))
    rows = [
        client.put({"x": np.full((2, 60_000), i, np.uint8), "text": [f"{i}", "b"]}, global_step=0) for i in range(4)
    ]
    lease = client.get_meta(["x"], 2, 0, "rollout", lease_s=60)
    client.put({"y": np.full((2, 70_000), 7, np.int16)}, metadata=lease)
    client.ack(lease, version=3)
    client.drop(client.get_meta(["x"], 2, 0, "rollout", lease_s=60), "dull")
    client.get_meta(["x"], 2, 0, "rollout", lease_s=60)
    client.checkpoint(tmp_path / "checkpoint")
    client.clear(0, force=True)
    other = connect(
        start(num_n_samples=2, num_global_batch=2, storage=storage, restore=tmp_path / "checkpoint",
              journal_dir=tmp_path / "other")
    )  # fmt: skip
    for i, meta in enumerate(rows):
        assert values(other, meta, ["x", "text"]) == [[[i] * 60_000] * 2, [f"{i}", "b"]]
    assert values(other, lease, ["y"]) == [[[7] * 70_000] * 2]
    counts = other.stats().tasks["rollout"]
    assert (counts.produced, counts.consumed, counts.dropped, counts.leased) == (8, 2, {"dull": 2}, 0)
    assert other.rollback(2).rows == {"rollout": lease.global_indexes}


def test_a_checkpoint_that_its_controller_dies_over_is_made_by_the_next_one(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client, other = connect(controller), connect(controller)
    meta = client.put({"x": LARGE})
    (tmp_path / "checkpoint.tmp").write_bytes(b"left by one that was killed")
    done = in_background(lambda: client.checkpoint(tmp_path / "checkpoint"))
    other.stats()
    kill(controller)
    done()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "journal"]
    restored = connect(start(restore=tmp_path / "checkpoint", storage="memory"))

    assert (np.asarray(restored.get_data(meta)["x"]) == LARGE).all()


def test_a_checkpoint_that_cannot_be_made_says_why(start: Start, connect: Connect, tmp_path: Path) -> None:
    client = connect(start(journal_dir=tmp_path / "journal"))
    client.put({"x": ["a"]})
    with pytest.raises(ConfigurationError, match="in a folder that is there"):
        client.checkpoint(tmp_path / "nowhere" / "checkpoint")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(JournalError, match=r"folder could not be made: .*[Dd]irectory"):
        client.checkpoint(tmp_path / "folder")
    with pytest.raises(ConfigurationError, match="journal_dir"):
        connect(start()).checkpoint(tmp_path / "checkpoint")
    with pytest.raises(JournalError, match="no checkpoint of this version"):
        (tmp_path / "text").write_text("a text")
        start(restore=tmp_path / "text")
    client.checkpoint(tmp_path / "checkpoint")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "folder", "journal", "text"]


def put_until_refused(client: TransferQueueClient) -> list[str]:
    """What was acknowledged until the disk was full."""
    acknowledged: list[str] = []
    with pytest.raises(JournalError, match=r"could not be written|cannot be begun"):
        for number in range(1000):
            client.put({"x": [f"{number}".ljust(20_000)]})
            acknowledged.append(f"{number}".ljust(20_000))
    return acknowledged


def test_a_journal_that_may_not_grow(start: Start, connect: Connect, tmp_path: Path) -> None:
    controller = start(journal_dir=tmp_path / "journal", global_batch_size=1000)
    client = connect(controller)
    client.put({"x": ["first"]})
    resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    acknowledged = put_until_refused(client)
    assert 5 < len(acknowledged) < 12
    meta = client.get_meta(["x"], 1 + len(acknowledged), task_name="train")
    assert client.stats().rows_put_total == 1 + len(acknowledged)
    assert list(client.get_data(meta)["x"]) == ["first", *acknowledged]
    assert client.put({"x": ["more"]}).global_indexes == [1 + len(acknowledged)]


def test_a_full_disk_and_room_later(
    start: Start, connect: Connect, tmp_path: Path, tiny_memory: Callable[[int], Path]
) -> None:
    disk = tiny_memory(1)
    controller = start(journal_dir=disk / "journal", global_batch_size=1000)
    client, filler = connect(controller), disk / "filler"
    client.put({"x": ["first"]})
    with open(filler, "wb") as file:
        file.write(bytes(800_000))
    acknowledged = put_until_refused(client)
    with open(filler, "ab", buffering=0) as file:
        while os.statvfs(disk).f_bfree:
            file.write(bytes(4096))
    reading = in_background(lambda: client.get_meta(["x"], 1 + len(acknowledged), task_name="train"))
    time.sleep(1.0)
    filler.unlink()

    assert list(client.get_data(reading())["x"]) == ["first", *acknowledged]
    assert client.stats().rows_put_total == 1 + len(acknowledged)
