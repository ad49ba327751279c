"""A sampler that nobody calls: what it does with leases, weights and failures."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from transfer_queue import TransferQueueClient, TransferQueueController
from twinkle.attach_config import AttachConfig
from twinkle.data_format import SamplingParams
from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version, WeightPayload
from twinkle.loop.serving import RolloutServer
from twinkle.loop.weight_board import WeightFile
from twinkle.loop.weight_sync import PolicySampler
from twinkle.model.tiny import make_tiny_opt
from twinkle.sampler import TorchSampler

N, LONG_S = 4, 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_opt(tmp_path_factory.mktemp("opt"), max_positions=512)


@pytest.fixture
def client() -> Iterator[TransferQueueClient]:
    with (
        TransferQueueController.start(global_batch_size=4, num_n_samples=N) as queue,
        TransferQueueClient("test", queue.get_info()) as client,
    ):
        yield client


@pytest.fixture
def served(client: TransferQueueClient, folder: Path) -> Iterator[Callable[..., RolloutServer]]:
    """Makes servers of the queue."""
    servers: list[RolloutServer] = []

    def make(board: WeightFile | None = None, max_tokens: int = 4, **settings: Any) -> RolloutServer:
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        own = TransferQueueClient("server", client._info)
        policy = PolicySampler(TorchSampler(folder))
        servers.append(RolloutServer(own, policy, params, N, board, AttachConfig(**settings)))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def put(client: TransferQueueClient, groups: int = 1, prompt: str = "12", step: int = 1) -> None:
    rows = groups * N
    seeds = torch.arange(rows) // N
    client.put({"prompt": [prompt] * rows, "sample_id": torch.arange(rows), "seed": seeds}, global_step=step)


def until(server: RolloutServer, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline
        server.serve(0.02)


def consumed(client: TransferQueueClient) -> int:
    counts = client.stats().tasks.get("rollout")
    return counts.consumed if counts is not None else 0


def responses(client: TransferQueueClient, rows: int, step: int = 1) -> Any:
    fields = ["sample_id", "response_ids", "version", "fingerprint"]
    return client.get(fields, rows, step, "train", lease_s=60, plain=True)[1]


def test_each_group_is_begun_with_the_newest_weights(
    client: TransferQueueClient, served: Callable[..., RolloutServer], folder: Path, tmp_path: Path
) -> None:
    board = WeightFile(tmp_path / "weights")
    server = served(board)
    own = {name: tensor.clone() for name, tensor in server.policy.sampler._module.state_dict().items()}  # type: ignore[attr-defined]
    for step, factor in ((3, 0.5), (4, 0.7)):
        payload = WeightPayload.of(Version(0, step), {name: tensor * factor for name, tensor in own.items()})
        board.publish(payload)
        put(client, step=step)
        until(server, lambda: consumed(client) == N)
        data = responses(client, N, step)
        client.clear(step, force=True)

        assert data["version"].tolist() == [[0, step]] * N
        assert data["fingerprint"] == [payload.fingerprint] * N


def test_weights_that_changed_on_their_way_end_the_server_and_give_the_rows_back(
    client: TransferQueueClient, served: Callable[..., RolloutServer], tmp_path: Path
) -> None:
    board = WeightFile(tmp_path / "weights")
    board.publish(WeightPayload.of(Version(0, 1), {"a": torch.arange(64.0)}))
    content = bytearray(board.path.read_bytes())
    content[-1] ^= 1
    board.path.write_bytes(content)
    put(client)

    with pytest.raises(WeightSyncError, match="changed on their way"):
        until(served(board), lambda: False)
    assert client.stats().leases == 0
    board.close()
    with pytest.raises(WeightSyncError, match="has published no weights"):
        until(served(board), lambda: False)
    assert client.stats().leases == 0


def test_rows_whose_lease_is_over_are_left_to_others(
    client: TransferQueueClient, served: Callable[..., RolloutServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server hangs with a group in its hands; another answers it, and the late answer is refused."""
    slow, go_on = served(lease_s=0.2), threading.Event()
    answers = slow._answers
    monkeypatch.setattr(slow, "_answers", lambda group: go_on.wait(LONG_S) and answers(group))
    put(client)
    until(slow, lambda: client.stats().leases == 1)
    quick = served()
    until(quick, lambda: consumed(client) == N)
    first = responses(client, N)
    go_on.set()
    until(slow, lambda: slow._late == N)

    assert (slow.serve(0.01)[0].rows, quick.serve(0.01)[0].rows) == (0, N)
    assert first["fingerprint"] == ["base"] * N


def test_responses_that_come_let_the_lease_live(
    client: TransferQueueClient, served: Callable[..., RolloutServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, extended = served(lease_s=1.0), []
    extend = server.client.extend
    monkeypatch.setattr(server.client, "extend", lambda *given: (extended.append(given[1]), extend(*given)))
    times = iter(range(1000))
    monkeypatch.setattr("twinkle.loop.serving.time.monotonic", lambda: float(next(times)))
    put(client)
    server._free.acquire()
    server._take(LONG_S)
    while server._running:
        threading.Event().wait(0.01)

    assert extended == [1.0] * N


def test_two_servers_take_turns(client: TransferQueueClient, served: Callable[..., RolloutServer]) -> None:
    one, other = served(), served()

    def take_two(server: RolloutServer) -> None:
        for _ in range(2):
            server._free.acquire()
            server._take(LONG_S)

    threads = [threading.Thread(target=take_two, args=(server,)) for server in (one, other)]
    for thread in threads:
        thread.start()
    put(client, groups=4)
    for thread in threads:
        thread.join()
    until(one, lambda: consumed(client) == 4 * N)

    assert [server.serve(0.01)[0].rows for server in (one, other)] == [2 * N, 2 * N]


def test_a_load_of_weights_may_outlast_the_lease(
    client: TransferQueueClient,
    served: Callable[..., RolloutServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a server loads, its prompts are anybody's; afterwards it takes them, and is not late with them."""
    board, server = WeightFile(tmp_path / "weights"), served()
    own = {name: tensor.clone() for name, tensor in server.policy.sampler._module.state_dict().items()}  # type: ignore[attr-defined]
    board.publish(WeightPayload.of(Version(0, 3), own))
    server.board = board
    leased, load = [], server.policy.load
    monkeypatch.setattr(server.policy, "load", lambda payload: (leased.append(client.stats().leases), load(payload)))
    put(client)
    until(server, lambda: consumed(client) == N)

    assert leased == [0]
    assert server._late == 0


@pytest.mark.parametrize("prompt", ["1" * 600, "é"])
def test_a_prompt_that_cannot_be_answered_is_dropped_with_a_sentence_and_the_others_are_answered(
    client: TransferQueueClient, served: Callable[..., RolloutServer], prompt: str
) -> None:
    server = served()
    put(client, groups=1, prompt=prompt)
    put(client, groups=1)
    until(server, lambda: consumed(client) == N)

    (reason,) = client.stats().tasks["rollout"].dropped
    assert reason.startswith(f"the prompt {prompt[:60]!r}"[:-1])
    stands = server.serve(0.01)[0]
    assert (stands.rows, stands.dropped, stands.dropped_why) == (N, N, reason)
    assert client.stats().leases == 0


def test_closing_gives_back_what_is_not_answered(
    client: TransferQueueClient, served: Callable[..., RolloutServer]
) -> None:
    server = served(max_tokens=500, lease_s=1000.0)
    put(client, groups=2)
    until(server, lambda: client.stats().leases == 2)
    server.close()

    assert client.stats().leases == 0
