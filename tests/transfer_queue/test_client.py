"""A queue as its users see it: a real controller process and real clients."""

import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.transfer_queue.transport.serving import until
from transfer_queue import (
    BackPressureError,
    BatchMeta,
    ConfigurationError,
    DPGroupError,
    DPSampler,
    ExhaustedError,
    FieldError,
    GroupError,
    GRPOSampler,
    LeaseError,
    NotReadyError,
    SamplerError,
    StepClearedError,
    TransferQueueClient,
    TransferQueueController,
    wire,
)
from transfer_queue.exchange import Ask
from transfer_queue.transport.channel import unix_socket
from transfer_queue.transport.framing import framed

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]


def in_background(call: Callable[[], Any]) -> Callable[[], Any]:
    """Runs `call` in a thread; the result function waits for it and raises what it raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - handed over to the waiting test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(20)
        assert outcome, "still waiting"
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    return result


def wait_for_restart(controller: TransferQueueController) -> None:
    """Until the supervisor has heard of the controller that it brought back, whose clients may be served before."""
    until(lambda: controller._supervisor.restarts == 1)


def wait_for_waiting(client: TransferQueueClient, task: str, count: int = 1) -> None:
    """Until so many requests of the task wait in the controller."""
    for _ in range(500):
        stats = client.stats()
        if task in stats.tasks and stats.tasks[task].waiting == count:
            return
        time.sleep(0.005)
    raise AssertionError(f"no {count} requests of {task!r} wait: {client.stats()}")


def test_rows_go_from_task_to_task(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2, tasks=["rollout", "train"], task_samplers={"train": GRPOSampler(2)}))
    put = client.put({"prompt": ["a", "a", "b", "b"]}, global_step=3)
    rollout = client.get_meta(["prompt"], 4, 3, "rollout", lease_s=30)
    prompts = client.get_data(rollout)["prompt"]
    client.put({"response": [p.upper() for p in prompts]}, metadata=rollout)
    client.ack(rollout)
    train = client.get_meta(["prompt", "response"], 4, 3, "train", lease_s=30)
    data = client.get_data(train)

    assert (list(data["prompt"]), list(data["response"])) == (["a", "a", "b", "b"], ["A", "A", "B", "B"])
    assert train.global_indexes == put.global_indexes
    assert train.group_ids == [0, 0, 1, 1]
    assert train.global_step == 3
    assert [sample.group_id for sample in train.samples] == train.group_ids
    assert client.clear(3, force=True)
    assert client.stats().stored_bytes == 0


def test_a_wait_ends_when_the_last_row_becomes_ready(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    client.put({"x": ["1", "2", "3"]}, global_step=0)
    result = in_background(lambda: client.get_meta(["x"], 4, 0, "train", timeout_s=20))
    wait_for_waiting(client, "train")
    began = time.monotonic()
    client.put({"x": ["4"]}, global_step=0)
    meta = result()

    assert time.monotonic() - began < 0.5
    assert len(meta) == 4


def test_who_waits_blocks_nobody(start: Start, connect: Connect) -> None:
    client = connect(start())
    result = in_background(lambda: client.get_meta(["x"], 8, 0, "slow", timeout_s=20))
    wait_for_waiting(client, "slow")
    began = time.monotonic()
    for _ in range(8):
        client.put({"x": ["1"]}, global_step=0)
    client.get_meta(["x"], 8, 0, "other")

    assert time.monotonic() - began < 1.0
    assert len(result()) == 8


def test_waits_of_one_task_are_served_in_order_of_arrival(start: Start, connect: Connect) -> None:
    client = connect(start())
    big = in_background(lambda: client.get_meta(["x"], 4, 0, "train", timeout_s=20))
    wait_for_waiting(client, "train", 1)
    small = in_background(lambda: client.get_meta(["x"], 1, 0, "train", timeout_s=20))
    wait_for_waiting(client, "train", 2)
    client.put({"x": ["1", "2", "3"]}, global_step=0)
    assert client.stats().tasks["train"].waiting == 2
    client.put({"x": ["4", "5"]}, global_step=0)

    assert big().global_indexes == [0, 1, 2, 3]
    assert small().global_indexes == [4]


def test_a_later_request_for_another_step_does_not_wait_for_the_earlier_one(start: Start, connect: Connect) -> None:
    client = connect(start(num_global_batch=2))
    first = in_background(lambda: client.get_meta(["x"], 8, 5, "train", timeout_s=20))
    wait_for_waiting(client, "train")
    client.put({"x": ["1"] * 8}, global_step=4)

    assert client.get_meta(["x"], 8, 4, "train", timeout_s=1).global_step == 4
    client.put({"x": ["1"] * 8}, global_step=5)
    assert first().global_step == 5


def test_not_ready_says_what_is_missing_and_why(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2), "worker-7")
    rows = client.put({"x": list("abcdefgh")}, global_step=3)
    held = client.get_meta(["x"], 2, 3, "train", True, lease_s=60)
    some = BatchMeta(rows.global_indexes[2:5], [], rows.global_steps[2:5], rows.group_ids[2:5])
    client.put({"y": ["1", "2", "3"]}, metadata=some)
    began = time.monotonic()
    with pytest.raises(NotReadyError) as caught:
        client.get_meta(["x", "y"], 16, 3, "train", True, timeout_s=0.2)
    text = str(caught.value)

    assert 0.2 <= time.monotonic() - began < 1.0
    assert "get_meta waited 0.2 s: task 'train' needs 16 rows of step 3 with ['x', 'y']: 2 ready" in text
    assert "3 without field 'y'" in text
    assert "1 in groups of which 1/2 are ready" in text
    assert "8 not put to step 3 yet" in text
    assert f"2 leased by 'worker-7' for 0 s (lease {held.lease})" in text
    assert caught.value.details == {"task": "train", "needed": 16, "ready": 2}
    assert isinstance(caught.value, TimeoutError)
    assert str(client.why("train")) in text


def test_why_of_a_task_that_never_asked(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"] * 3}, global_step=0)

    assert "3 are there, but the task has never asked for any" in str(client.why("train"))


def test_why_names_the_request_that_goes_first(start: Start, connect: Connect) -> None:
    client = connect(start(), "me")
    result = in_background(lambda: client.get_meta(["x"], 8, 0, "train", timeout_s=5))
    wait_for_waiting(client, "train")
    with pytest.raises(NotReadyError, match="go first to 'me', whose earlier request waits"):
        client.get_meta(["x"], 1, 0, "train", timeout_s=0.1)
    client.put({"x": ["1"] * 8}, global_step=0)
    result()


def test_exhausted_is_told_at_once_also_to_those_who_wait(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"] * 8}, global_step=0)
    began = time.monotonic()
    with pytest.raises(ExhaustedError, match="at most 8 can become ready"):
        client.get_meta(["x"], 9, 0, "train")
    waiting = in_background(lambda: client.get_meta(["later"], 8, 0, "train", timeout_s=20))
    wait_for_waiting(client, "train")
    held = client.get_meta(["x"], 1, 0, "judge", lease_s=9)
    client.drop(held, "broken")
    with pytest.raises(ExhaustedError, match=r"1 were dropped \(broken\)") as error:
        waiting()
    assert error.value.details["dropped"] == ["broken"]
    assert time.monotonic() - began < 3


def test_a_wait_on_a_cleared_step_ends(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"]}, global_step=0)
    waiting = in_background(lambda: client.get_meta(["x"], 8, 0, "train", timeout_s=20))
    wait_for_waiting(client, "train")
    assert client.clear(0)
    with pytest.raises(StepClearedError, match="step 0 was cleared"):
        waiting()
    assert not client.clear(0)


def test_producers_wait_for_room_in_order_with_a_deadline(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=2))
    client.put({"x": ["1", "2"]}, global_step=0)
    with pytest.raises(BackPressureError, match=r"num_global_batch=1 partitions are alive \(steps \[0\]\)"):
        client.put({"x": ["1", "2"]}, global_step=1, timeout_s=0.1)
    waiting = in_background(lambda: client.put({"x": ["3", "4"]}, global_step=1, timeout_s=20))
    for _ in range(200):
        if client.stats().waiting_producers:
            break
        time.sleep(0.005)
    client.clear(0)

    assert waiting().global_step == 1
    assert list(client.get_data(client.get_meta(["x"], 2, 1, "t"))["x"]) == ["3", "4"]


def test_a_queue_that_clears_itself_lets_the_producer_run_ahead_by_one(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=2, tasks=["train"]))
    producing = in_background(lambda: [client.put({"x": [str(i)] * 2}, timeout_s=10) for i in range(5)])
    for i in range(5):
        meta = client.get_meta(["x"], 2, i, "train", timeout_s=10)
        assert list(client.get_data(meta)["x"]) == [str(i)] * 2
    producing()
    stats = client.stats()

    assert (stats.partitions, stats.stored_bytes, stats.rows_put_total) == ([], 0, 10)
    assert stats.tasks["train"].consumed_total == 10


def test_leases_expire_and_the_next_in_line_gets_the_rows(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1", "2"]}, global_step=0)
    lost = client.get_meta(["x"], 2, 0, "train", lease_s=0.3)
    second = client.get_meta(["x"], 2, 0, "train", timeout_s=10)

    assert second.global_indexes == lost.global_indexes
    with pytest.raises(LeaseError, match=f"lease {lost.lease} .* expired"):
        client.ack(lost)
    with pytest.raises(LeaseError, match="expired"):
        client.put({"y": ["1", "2"]}, metadata=lost)


def test_extend_and_release(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1", "2"]}, global_step=0)
    meta = client.get_meta(["x"], 2, 0, "train", lease_s=0.2)
    client.extend(meta, 30)
    with pytest.raises(NotReadyError):
        client.get_meta(["x"], 2, 0, "train", timeout_s=0.4)
    client.release(meta)

    assert client.get_meta(["x"], 2, 0, "train").global_indexes == meta.global_indexes


def test_ack_needs_a_lease(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"]}, global_step=0)
    meta = client.get_meta(["x"], 1, 0, "train")
    with pytest.raises(LeaseError, match="lease_s=60"):
        client.ack(meta)


def test_a_consumer_that_dies_while_it_waits_loses_no_rows(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    doomed = waiting_request(controller, wire.GetMeta("train", ["x"], 2, 0, False, None, None, 60.0))
    wait_for_waiting(client, "train")
    doomed.close()
    client.put({"x": ["1", "2"]}, global_step=0)

    assert len(client.get_meta(["x"], 2, 0, "train", timeout_s=2)) == 2


def test_wrong_requests_are_told_and_change_nothing(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2))
    client.put({"x": ["1", "2"]}, global_step=0)
    bad: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (GroupError, "a put of 3 rows", lambda: client.put({"x": ["1"] * 3}, global_step=0)),
        (GroupError, "with metadata", lambda: client.put({"x": ["1"]}, BatchMeta([0], [], [0], [0]), 1)),
        (GroupError, "not divisible", lambda: client.get_meta(["x"], 1, 0, "train", True)),
        (GroupError, "at least 1", lambda: client.get_meta(["x"], 0, 0, "train")),
        (ConfigurationError, "task_name is missing", lambda: client.get_meta(["x"], 1, 0)),
        (ConfigurationError, "one string", lambda: client.get_meta("xyz", 1, 0, "train")),
        (ConfigurationError, "lease_s=-1", lambda: client.get_meta(["x"], 1, 0, "train", lease_s=-1.0)),
        (FieldError, "names no data_fields", lambda: client.get_meta([], 1, 0, "train")),
        (FieldError, "1 rows of values for the 2 rows", lambda: client.put(
            {"y": ["1"]}, BatchMeta([0, 1], [], [0, 0], [0, 0]))),
        (FieldError, "has 2 rows", lambda: client.put({"a": ["1"] * 4, "b": ["1"] * 2}, global_step=0)),
        (FieldError, "no field 'y'", lambda: client.get_data(BatchMeta([0], ["y"], [0], [0]))),
        (FieldError, "holds object values", lambda: client.put({"x": np.zeros(2)}, global_step=0)),
        (FieldError, "negative", lambda: client.put({"x": ["1"] * 2}, global_step=-1)),
        (SamplerError, "'dp_rnk'.*did you mean 'dp_rank'", lambda: client.get_meta(
            ["x"], 1, 0, "train", sampler_params={"dp_rnk": 0})),
        (DPGroupError, "no dp_group_id", lambda: client.get_meta(
            ["x"], 1, 0, "train", sampler_params={"dp_rank": 0, "dp_size": 1})),
    ]  # fmt: skip
    before = client.stats().tasks.get("train")
    for kind, text, call in bad:
        with pytest.raises(kind, match=text):
            call()

    assert client.stats().tasks.get("train") == before
    assert len(client.get_meta(["x"], 2, 0, "train")) == 2


def test_dp_ranks_through_sampler_params(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2))
    client.put({"x": [str(i) for i in range(16)]}, global_step=0)

    def get(rank: int) -> BatchMeta:
        params = {"dp_rank": rank, "dp_size": 4, "dp_group_id": "step0"}
        return client.get_meta(["x"], 4, 0, "train", True, params, lease_s=30)

    metas = [get(rank) for rank in (2, 0, 3, 1)]
    rows = sorted(index for meta in metas for index in meta.global_indexes)
    for meta in metas[:3]:
        client.ack(meta)
    assert client.stats().tasks["train"].leased == 16
    client.ack(metas[3])

    assert rows == list(range(16))
    assert client.stats().tasks["train"].consumed == 16


def test_a_registered_dp_sampler_is_its_clients_default(start: Start, connect: Connect) -> None:
    controller = start()
    clients = [connect(controller, f"rank{rank}") for rank in range(2)]
    for rank, client in enumerate(clients):
        client.register_sampler("train", DPSampler(rank, 2))
    clients[0].put({"x": [str(i) for i in range(8)]}, global_step=0)
    rows = [client.get_meta(["x"], 2, 0, "train").global_indexes for _ in range(2) for client in clients]

    assert rows == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(DPGroupError, match=r"dp_size=2.*DPSampler\(0, 4\)"):
        clients[0].register_sampler("train", DPSampler(0, 4))


def test_a_dp_sampler_registered_through_the_controller_is_everybodys_default(start: Start, connect: Connect) -> None:
    controller = start()
    controller.register_sampler("train", DPSampler(0, 2))
    client = connect(controller)
    client.put({"x": ["1"] * 8}, global_step=0)
    assert client.get_meta(["x"], 4, 0, "train").global_indexes == [0, 1, 2, 3]
    explicit = {"dp_rank": 1, "dp_size": 2, "dp_group_id": "DPSampler reservation 0"}
    assert client.get_meta(["x"], 4, 0, "train", sampler_params=explicit).global_indexes == [4, 5, 6, 7]
    controller.register_sampler("train", DPSampler(1, 2))
    with pytest.raises(DPGroupError, match=r"ranks \[0, 1\] registered through the controller"):
        client.get_meta(["x"], 4, 0, "train")


def test_samplers_by_task_with_a_default(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=2, sampler=GRPOSampler(2)))
    client.put({"x": ["1"]}, global_step=0, group_id="p")
    client.put({"x": ["2"]}, global_step=0, group_id="q")
    with pytest.raises(NotReadyError, match="2 in groups of which 1/2 are ready"):
        client.get_meta(["x"], 2, 0, "train", timeout_s=0)
    client.put({"x": ["3"]}, global_step=0, group_id="q")
    meta = client.get_meta(["x"], 2, 0, "train")

    assert (meta.group_ids, list(client.get_data(meta)["x"])) == (["q", "q"], ["2", "3"])


def test_one_client_serves_many_threads(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=64))
    waiting = [in_background(lambda: client.get_meta(["x"], 4, 0, "train", timeout_s=20)) for _ in range(8)]
    producing = [in_background(lambda: client.put({"x": ["1"] * 4}, global_step=0)) for _ in range(8)]
    put = sorted(index for result in producing for index in result().global_indexes)
    got = sorted(index for result in waiting for index in result().global_indexes)

    assert put == got == list(range(32))


def test_a_closed_client_says_so(start: Start) -> None:
    client = TransferQueueClient("me", start().get_info())
    client.stats()
    client.close()
    client.close()
    with pytest.raises(ConfigurationError, match="'me' is closed"):
        client.stats()


@pytest.mark.parametrize("info", [None, {}, "unix://x", {"endpoint": 3}, {"endpoint": "ipc://x"}])
def test_a_client_needs_controller_info(info: Any) -> None:
    with pytest.raises(ConfigurationError, match="controller_info"):
        TransferQueueClient("me", info)


def test_get_n_samples_means_whole_groups_with_the_default_sampler(start: Start, connect: Connect) -> None:
    client = connect(start(num_n_samples=4))
    rows = client.put({"x": ["1"] * 8}, global_step=0)
    part = rows.global_indexes[2:]
    client.put({"y": ["1"] * 6}, metadata=BatchMeta(part, [], [0] * 6, [0] * 6))

    assert client.get_meta(["y"], 4, 0, "train", get_n_samples=True).group_ids == [1, 1, 1, 1]
    assert client.get_meta(["y"], 2, 0, "train").global_indexes == part[:2]


def test_values_are_freed_with_their_partition_and_bytes_are_counted(start: Start, connect: Connect) -> None:
    client = connect(start(num_global_batch=2))
    for step in (0, 1):
        client.put({"x": np.zeros((4, 100), dtype=np.float32)}, global_step=step)
    assert client.stats().stored_bytes == 2 * 4 * 400
    client.clear(0)
    assert client.stats().stored_bytes == 4 * 400
    data = client.get_data(client.get_meta(["x"], 4, 1, "t"))

    assert data["x"].shape == (4, 100)


def test_what_an_unfinished_producer_wrote_is_written_by_the_next(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.put({"x": ["1"] * 4}, global_step=0)
    first = client.get_meta(["x"], 4, 0, "rollout", lease_s=9)
    client.put({"y": ["lost"] * 4}, metadata=first)
    client.release(first)
    second = client.get_meta(["x"], 4, 0, "rollout", lease_s=9)
    client.put({"y": ["kept"] * 4}, metadata=second)
    client.ack(second)

    assert list(client.get_data(client.get_meta(["y"], 4, 0, "train"))["y"]) == ["kept"] * 4


def test_a_client_that_nobody_closed_leaves_no_socket_open(start: Start) -> None:
    client = TransferQueueClient("careless", start().get_info())
    client.stats()
    connection = client._idle[0]
    del client
    gc.collect()

    assert not connection.connected


def waiting_request(controller: TransferQueueController, body: wire.Body) -> socket.socket:
    """A request whose caller can be let die by closing the socket."""
    doomed = unix_socket(controller.get_info()["endpoint"].removeprefix("unix://"), time.monotonic() + 5)
    doomed.sendall(framed([wire.encode(wire.Request(1, "doomed", body))])[0])
    return doomed


def test_nobody_waits_behind_a_consumer_that_died(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    doomed = waiting_request(controller, wire.GetMeta("train", ["x"], 8, 0, False, None, None, 60.0))
    wait_for_waiting(client, "train")
    client.put({"x": ["1", "2"]}, global_step=0)
    doomed.close()

    assert len(client.get_meta(["x"], 2, 0, "train", timeout_s=20)) == 2


def test_a_dp_rank_that_died_while_it_waited_has_not_voted(start: Start, connect: Connect) -> None:
    controller = start()
    client = connect(controller)
    places = [{"dp_rank": rank, "dp_size": 2, "dp_group_id": "g"} for rank in range(2)]
    first = in_background(lambda: client.get_meta(["x"], 2, 0, "train", sampler_params=places[0], timeout_s=20))
    wait_for_waiting(client, "train")
    doomed = waiting_request(controller, wire.GetMeta("train", ["x"], 2, 0, False, places[1], None, 60.0))
    wait_for_waiting(client, "train", 2)
    doomed.close()
    client.put({"x": ["1"] * 4}, global_step=0)
    again = client.get_meta(["x"], 2, 0, "train", sampler_params=places[1], timeout_s=20)

    assert first().global_indexes + again.global_indexes == [0, 1, 2, 3]
    assert client.stats().tasks["train"].consumed == 4


def test_a_put_that_waited_cannot_change_the_dtype_of_a_field(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=2, num_global_batch=2))
    client.put({"x": ["1"] * 2}, global_step=0)
    kept = client.put({"x": ["1"] * 2}, global_step=1)
    late = in_background(lambda: client.put({"y": np.arange(2)}, global_step=2, timeout_s=20))
    while not client.stats().waiting_producers:
        time.sleep(0.005)
    client.put({"y": np.array([0.5, 1.5], dtype=np.float32)}, metadata=kept)
    client.clear(0)
    with pytest.raises(FieldError, match="holds float32 values, this put brings int64"):
        late()

    assert client.get_data(kept, ["y"])["y"].tolist() == [0.5, 1.5]


def test_more_rows_than_the_queue_holds_are_refused_before_any_work(start: Start, connect: Connect) -> None:
    client = connect(start())
    body = wire.Put(10**15, [wire.Column("x", "int64", [(0,)])])
    with pytest.raises(GroupError, match="hold 8 together"):
        client._exchange(Ask(wire.Rows, body, [b""], 5.0, lambda: "put"))


def test_arguments_that_cannot_be_sent_are_typed_errors(start: Start, connect: Connect) -> None:
    client = connect(start())
    for call, kind, named in (
        (lambda: client.get_meta(["x"], 2**70, 0, "train"), ConfigurationError, "GetMeta .* cannot be sent"),
        (lambda: client.get_meta(["x"], 1, 0, "\ud800"), ConfigurationError, "surrogates not allowed"),
        (lambda: client.get_meta(["x"], 1, 0, "t", timeout_s=float("nan")), ConfigurationError, "timeout_s=nan"),
        (lambda: client.get_meta(["x"], 1, -1, "t"), FieldError, "global_step=-1 is negative"),
        (lambda: client.put({"x": ["1"]}, group_id=1.5), GroupError, "group_id=1.5 is neither"),  # type: ignore[arg-type]
        (lambda: client.put({"x": ["1"]}, group_id=[True]), GroupError, r"group_id=\[True\] is neither"),
    ):
        with pytest.raises(kind, match=named):
            call()
