import re

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.transfer_queue.test_client import Connect, Start, in_background
from transfer_queue import ControllerLostError, GroupError
from transfer_queue.metrics import QueueCollector, bounded
from transfer_queue.wire import Stats, TaskStats

NONE = TaskStats(0, 0, 0, 0, {}, {}, True, 0, 0)


def test_every_row_is_counted_under_one_state(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2))
    rows = client.put({"x": ["1"] * 10}, global_step=0)
    client.put({"y": ["1"] * 7}, metadata=type(rows)(rows.global_indexes[:7], [], [0] * 7, [0] * 7))
    client.ack(client.get_meta(["x", "y"], 2, 0, "train", True, lease_s=9))
    client.drop(client.get_meta(["x", "y"], 2, 0, "train", True, lease_s=9), "stale")
    client.get_meta(["x", "y"], 2, 0, "train", True, lease_s=9)
    registry = CollectorRegistry()
    registry.register(QueueCollector(client.stats))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"transfer_queue_{name}", labels)

    states = ("ready", "leased", "consumed", "dropped", "not_ready")
    assert [value("samples", task="train", state=state) for state in states] == [0, 2, 2, 2, 4]
    assert value("not_ready_samples", task="train", reason="field_missing") == 3
    assert value("not_ready_samples", task="train", reason="group_incomplete") == 1
    assert value("ready", task="train") == 0
    assert (value("partitions"), value("leases"), value("up")) == (1, 1, 1)
    assert value("stored_bytes") == 17 * 2
    assert (value("held_bytes"), value("oldest_reader_seconds")) == (0, 0)
    assert (value("samples_put_total"), value("samples_consumed_total", task="train")) == (10, 2)
    assert b"# TYPE transfer_queue_samples_put_total counter" in generate_latest(registry)


def test_readiness_turns_with_the_last_row(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"] * 3}, global_step=0)
    client.release(client.get_meta(["x"], 3, 0, "train", lease_s=9))
    assert client.stats().tasks["train"].is_ready
    client.get_meta(["x"], 1, 0, "train", lease_s=9)

    stats = client.stats().tasks["train"]
    assert (stats.ready, stats.leased, stats.is_ready) == (2, 1, True)


def test_a_lost_queue_shows_as_down() -> None:
    def lost() -> Stats:
        raise ControllerLostError("gone")

    registry = CollectorRegistry()
    registry.register(QueueCollector(lost))

    assert registry.get_sample_value("transfer_queue_up") == 0
    assert registry.get_sample_value("transfer_queue_partitions") is None


def text_of(stats: Stats) -> str:
    registry = CollectorRegistry()
    registry.register(QueueCollector(lambda: stats))
    return generate_latest(registry).decode()


def test_waits_leases_and_traffic_are_told(start: Start, connect: Connect) -> None:
    controller = start(global_batch_size=2)
    client = connect(controller)
    client.put({"x": ["1"] * 2}, global_step=0)
    client.get_meta(["x"], 1, 0, "train", lease_s=60)
    with pytest.raises(GroupError):
        client.put({"x": ["1"] * 3}, global_step=0)
    ended = in_background(lambda: connect(controller).put({"x": ["1"]}, global_step=1, timeout_s=20))
    while not (stats := client.stats()).waiting_producers:
        pass
    text = text_of(stats)
    client.clear(0, force=True)
    ended()

    values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line[0] != "#"}
    assert values['transfer_queue_requests_total{kind="put"}'] == 3
    assert values['transfer_queue_requests_total{kind="get_meta"}'] == 1
    assert values['transfer_queue_errors_total{kind="GroupError"}'] == 1
    assert values["transfer_queue_partitions_limit"] == values["transfer_queue_waiting_producers"] == 1
    assert values["transfer_queue_oldest_lease_age_seconds"] > 0
    assert values["transfer_queue_producer_wait_seconds"] > 0
    assert values['transfer_queue_required_samples{task="train"}'] == 1


def test_names_and_help_are_as_promtool_wants_them() -> None:
    task = msgspec.structs.replace(NONE, not_ready={"field_missing": 1})
    stats = Stats({"train": task}, [0], 0, 0, 1, 1, requests={"put": 1}, errors={"GroupError": 1})
    text = text_of(msgspec.structs.replace(stats, capacity_bytes=9, journal_bytes=2))
    families = list(text_string_to_metric_families(text))

    assert {"transfer_queue_capacity_bytes", "transfer_queue_journal_bytes"} <= {family.name for family in families}
    for family in families:
        assert re.fullmatch("transfer_queue_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        names = {sample.name for sample in family.samples}
        assert names == {family.name + "_total" if family.type == "counter" else family.name}
        if family.type == "gauge":
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert not re.search("_(ms|milliseconds|minutes|kb|mb)$", family.name)
    assert len(families) == len({family.name for family in families})


def test_what_a_queue_does_not_have_is_not_shown() -> None:
    text = text_of(Stats({}, [], 0, 0, 0, 0))

    assert "capacity_bytes" not in text
    assert "journal_bytes" not in text


def test_tasks_beyond_32_are_summed_and_no_label_is_free_text() -> None:
    one = msgspec.structs.replace(
        NONE, ready=1, consumed_total=2, waiting=1, is_ready=False, dropped={"anything": 1}, not_ready={"made_up": 3}
    )
    tasks = {f"t{i}": one for i in range(40)} | {"other": one, "train": one}
    seen = bounded(tasks)

    assert len(seen) == 32
    assert list(seen)[-2:] == ["train", "other"]
    assert seen["other"].consumed_total == 2 * 11
    assert sum(each.ready for each in seen.values()) == 42
    text = text_of(Stats(tasks, [], 0, 0, 0, 0))
    assert text.count("transfer_queue_ready{") == 32
    assert "made_up" not in text
    assert "anything" not in text
    assert 'transfer_queue_not_ready_samples{reason="other",task="train"} 3.0' in text
