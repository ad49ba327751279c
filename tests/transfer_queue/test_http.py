"""The endpoint as its callers meet it: over sockets, with a real controller."""

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.transfer_queue import samplers_for_tests as made
from tests.transfer_queue.test_client import Connect, Start, in_background, wait_for_waiting
from transfer_queue import ConfigurationError, SamplerError, TransferQueueController
from transfer_queue import http as http_module
from transfer_queue.http import Endpoint
from transfer_queue.pages import Pages

Serve = Callable[..., Endpoint]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def begin(controller: TransferQueueController, **arguments: Any) -> Endpoint:
            pages = stack.enter_context(Pages(controller.get_info(), **arguments))
            return stack.enter_context(Endpoint("127.0.0.1", 0, pages))

        yield begin


def get(endpoint: Endpoint, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    with closing(HTTPConnection("127.0.0.1", endpoint.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers["Content-Type"], reply.read().decode()


def said_to(endpoint: Endpoint, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as caller:
        caller.sendall(request)
        answer = b""
        while more := caller.recv(65536):
            answer += more
        return answer


def test_the_four_pages(start: Start, connect: Connect, serve: Serve) -> None:
    controller = start(tasks=["train"])
    client, endpoint = connect(controller), serve(controller)
    client.put({"x": ["1"] * 3}, global_step=0)
    ended = in_background(lambda: client.get_meta(["x", "y"], 4, 0, "train", timeout_s=5))
    wait_for_waiting(connect(controller), "train")

    assert get(endpoint, "/readyz")[::2] == (200, "ready\n")
    assert 'transfer_queue_not_ready_samples{reason="field_missing",task="train"} 3.0' in get(endpoint, "/metrics")[2]
    stands = json.loads(get(endpoint, "/why")[2])
    assert (stands[0]["task"], stands[0]["needed"], stands[0]["reasons"][0]["indexes"]) == ("train", 4, [0, 1, 2])
    status, kind, text = get(endpoint, "/why?task=train", Accept="text/plain")
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert "  3 without field 'y' (rows 0, 1, 2)\n" in text
    document = json.loads(get(endpoint, "/v1/status")[2])
    assert document["queue"] == {"task": "train", "ready": 0, "required": 4, "summary": "0/4"}
    assert document["tasks"][0]["waiting"] == 1
    client.put({"x": ["1"], "y": ["1"]}, global_step=0)
    client.put({"y": ["1"] * 3}, metadata=_rows(client, [0, 1, 2]))
    ended()


def _rows(client: Any, indexes: list[int]) -> Any:
    from transfer_queue import BatchMeta

    return BatchMeta(indexes, [], [0] * len(indexes), [0] * len(indexes))


def test_a_controller_that_is_gone_or_silent_is_not_ready(start: Start, serve: Serve) -> None:
    controller = start()
    endpoint = serve(controller, answer_s=0.3)
    assert get(endpoint, "/readyz")[0] == 200
    os.kill(controller.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, _, text = get(endpoint, "/readyz")
        assert (status, "did not answer" in text) == (503, True)
        assert time.monotonic() - began < 3
    finally:
        os.kill(controller.pid, signal.SIGCONT)
    assert get(endpoint, "/readyz")[0] == 200
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()

    assert get(endpoint, "/readyz")[0] == 503
    assert get(endpoint, "/why")[0] == 503
    status, kind, text = get(endpoint, "/v1/status")
    assert (status, kind, json.loads(text)["ready"]) == (503, "application/json", False)
    assert "transfer_queue_up 0.0" in get(endpoint, "/metrics")[2]


def test_a_standstill_is_not_ready_until_somebody_makes_room(start: Start, connect: Connect, serve: Serve) -> None:
    controller = start(global_batch_size=2)
    client, endpoint = connect(controller), serve(controller, stall_s=0.0)
    client.put({"x": ["1"] * 2}, global_step=0)
    assert get(endpoint, "/readyz")[0] == 200
    ended = in_background(lambda: client.put({"x": ["1"] * 2}, global_step=1, timeout_s=20))
    while not client.stats().waiting_producers:
        time.sleep(0.01)

    status, _, text = get(endpoint, "/readyz")
    assert status == 503
    assert "1 puts wait for room, 1 of 1 partitions are alive, no consumer has ever asked" in text
    held = connect(controller, "slow").get_meta(["x"], 2, 0, "train", lease_s=60)
    assert get(endpoint, "/readyz")[0] == 200  # somebody works
    client.release(held)
    client.clear(0)
    ended()
    assert get(endpoint, "/readyz")[0] == 200


def test_a_task_whose_sampler_hangs_is_not_ready(start: Start, connect: Connect, serve: Serve) -> None:
    controller = start(task_samplers={"train": made.Faulty("hangs")}, sampler_timeout_s=0.2)
    client, endpoint = connect(controller), serve(controller)
    client.put({"x": ["1"] * 2}, global_step=0)
    with pytest.raises(SamplerError, match="has not answered"):
        client.get_meta(["x"], 1, 0, "train")

    status, _, text = get(endpoint, "/readyz")
    assert (status, "task 'train' cannot be served: its sampler" in text) == (503, True)
    assert json.loads(get(endpoint, "/why?task=train")[2])[0]["reasons"][0]["code"] == "sampler_lost"


def test_only_get_and_only_these_paths(start: Start, serve: Serve) -> None:
    endpoint = serve(start())

    assert get(endpoint, "/")[0] == get(endpoint, "/../etc/passwd")[0] == get(endpoint, "/readyz/")[0] == 404
    assert "there are /metrics, /readyz, /why, /v1/status" in get(endpoint, "/elsewhere")[2]
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert get(endpoint, "/readyz", method)[0] == 405
    assert get(endpoint, "/why?" + "&".join("a=1" for _ in range(9)))[0] == 400


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 9000, b"431"),
        (b"GET /readyz HTTP/9.9\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.0\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(start: Start, serve: Serve, request_: bytes, status: bytes) -> None:
    endpoint = serve(start())

    assert said_to(endpoint, request_).split(b" ")[1:2] == [status]
    assert get(endpoint, "/readyz")[0] == 200


def kept_waiting(stack: ExitStack, endpoint: Endpoint) -> socket.socket:
    """A connection that is served: one may be refused while the thread of a caller that has its answer still ends."""
    while True:
        caller = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
        if not select.select([caller], [], [], 0.02)[0]:
            return caller


def test_callers_that_say_nothing_hold_nobody_up(start: Start, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_S", 2.0)
    endpoint = serve(start())
    with ExitStack() as stack:
        silent = [kept_waiting(stack, endpoint) for _ in range(http_module.CONNECTIONS - 1)]
        silent[0].sendall(b"GET /readyz HTTP/1.0\r\n")
        assert get(endpoint, "/readyz")[0] == 200
        silent.append(kept_waiting(stack, endpoint))
        while (answer := said_to(endpoint, b"")) and b" 503 " not in answer:
            time.sleep(0.01)
        assert [caller.recv(10) for caller in silent] == [b""] * len(silent)  # their time is over
    assert get(endpoint, "/readyz")[0] == 200


def test_many_callers_at_once(start: Start, serve: Serve) -> None:
    endpoint = serve(start())
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(get(endpoint, "/v1/status")[0])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [200] * 16


def test_a_port_in_use_is_one_sentence(start: Start, serve: Serve) -> None:
    controller = start()
    endpoint = serve(controller)
    with Pages(controller.get_info()) as pages, pytest.raises(ConfigurationError) as refused:
        Endpoint("127.0.0.1", endpoint.port, pages)

    assert str(refused.value) == f"port {endpoint.port} on 127.0.0.1 is in use: choose another"
