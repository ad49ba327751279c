from prometheus_client import CollectorRegistry, generate_latest

from tests.transfer_queue.test_client import Connect, Start
from transfer_queue import ControllerLostError
from transfer_queue.metrics import QueueCollector
from transfer_queue.wire import Stats


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
