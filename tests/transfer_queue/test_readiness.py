from typing import Any

import msgspec

from transfer_queue.readiness import hindrance
from transfer_queue.wire import Stats, TaskStats

FREE = TaskStats(8, 0, 0, 0, {}, {"field_missing": 8}, False, 1, 0, needed=8)
STUCK = Stats({"train": FREE}, [0], 0, 1, 100, 8, partitions_limit=1, idle_s=31.0)


def stuck(**changes: Any) -> Stats:
    return msgspec.structs.replace(STUCK, **changes)


def test_a_full_queue_that_nobody_can_empty_is_told_with_what_is_missing() -> None:
    said = hindrance(STUCK)

    assert said is not None
    for part in ("nothing has moved for 31 s", "1 puts wait", "1 of 1 partitions", "'train' (needs 8, 0 ready)"):
        assert part in said


def test_a_full_queue_without_any_consumer_is_stuck_too() -> None:
    said = hindrance(stuck(tasks={}, capacity_bytes=100))

    assert said is not None
    assert "no consumer has ever asked" in said
    assert "100 of 100 bytes" in said


def test_each_way_out_of_a_standstill_makes_it_ordinary_waiting() -> None:
    ready = msgspec.structs.replace(FREE, is_ready=True)

    assert hindrance(stuck(waiting_producers=0)) is None
    assert hindrance(stuck(leases=1)) is None
    assert hindrance(stuck(tasks={"train": FREE, "reward": ready})) is None
    assert hindrance(stuck(idle_s=29.0)) is None
    assert hindrance(stuck(idle_s=29.0), stall_s=5.0) is not None


def test_a_lost_sampler_is_told_even_while_others_move() -> None:
    lost = msgspec.structs.replace(FREE, lost="its sampler S has not answered for 40 s")
    stats = Stats({"reward": msgspec.structs.replace(FREE, is_ready=True), "train": lost}, [0], 3, 0, 0, 8)

    assert hindrance(stats) == "task 'train' cannot be served: its sampler S has not answered for 40 s"
