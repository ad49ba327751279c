"""What a queue says of itself, where no other test asks: lost samplers, journals, capacities, and the time."""

import time
from pathlib import Path

import pytest

from tests.transfer_queue.fuzz import PROMPT, Good, fresh_service
from tests.transfer_queue.test_client import Connect, Start
from transfer_queue import wire
from transfer_queue.readiness import hindrance
from transfer_queue.samplers.built_in import SequentialSampler

ASKS = wire.GetMeta("train", ["prompt"], 1, 0, False, None, 9.0, 0.0)


@pytest.mark.parametrize(("lost", "others"), [("train", False), (None, True)])
def test_a_sampler_that_did_not_survive_a_restart_is_said_everywhere_until_it_is_registered(
    lost: str | None, others: bool
) -> None:
    service = fresh_service()
    good = Good(service)
    good.ask(wire.Put(2, [PROMPT], step=0), b"\xa1a\xa1b")
    for task in ("train", "other"):
        good.ask(wire.GetMeta(task, ["prompt"], 1, 0, False, None, None, 1.0))
    service.registry.lose(lost, "Odd(): its module is gone")
    surveyed = good.ask(wire.Survey())
    stands = {stand.task: stand for stand in surveyed.explanations}

    assert surveyed.stats.tasks["train"].lost.endswith("(Odd(): its module is gone): register it again")
    assert (stands["train"].reasons[0].code, stands["train"].is_ready) == ("sampler_lost", False)
    assert bool(surveyed.stats.tasks["other"].lost) == others
    assert "cannot be served: its sampler did not survive" in (hindrance(surveyed.stats) or "")
    with pytest.raises(AssertionError, match=r"task 'train' cannot be served: .* register it again"):
        good.ask(ASKS)
    service.registry.register(SequentialSampler(), lost)
    assert hindrance(good.ask(wire.GetStats())) is None


def test_a_task_with_its_own_sampler_does_not_miss_that_of_the_others() -> None:
    service = fresh_service()
    service.registry.register(SequentialSampler(), "train")
    service.registry.lose(None, "Odd(): its module is gone")

    assert service.registry.lost_of("train") == ""
    assert service.registry.lost_of("other") != ""


def test_requests_and_errors_are_counted_and_the_age_of_a_lease_is_that_of_this_moment() -> None:
    good = Good(fresh_service())
    good.ask(wire.Put(2, [PROMPT], step=0), b"\xa1a\xa1b")
    good.ask(ASKS)
    with pytest.raises(AssertionError, match="lease 7 is unknown"):
        good.ask(wire.Release(7))
    time.sleep(0.02)
    stats = good.ask(wire.GetStats())

    assert stats.requests == {"put": 1, "get_meta": 1, "release": 1, "stats": 1}
    assert stats.errors == {"LeaseError": 1}
    assert stats.oldest_lease_s >= 0.02
    assert stats.idle_s >= 0.02
    assert (stats.capacity_bytes, stats.journal_bytes) == (None, None)


def test_capacity_and_journal_are_told_where_there_are_any(start: Start, connect: Connect, tmp_path: Path) -> None:
    client = connect(start(capacity_bytes=1 << 20, journal_dir=tmp_path / "journal"))
    before = client.stats()
    client.put({"x": ["1" * 1000] * 8}, global_step=0)

    assert before.capacity_bytes == 1 << 20
    assert before.journal_bytes is not None
    assert (client.stats().journal_bytes or 0) >= before.journal_bytes + 8000
