"""The poller against real servers on this machine: one that answers, and all the ways in which one can fail to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.twinkle_operator.test_status_document import status
from twinkle_operator import poller
from twinkle_operator.observed import Poll
from twinkle_operator.poller import Poller
from twinkle_operator.status_document import MOST_BYTES

KEY = ("n", "s")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *, code: str = "200 OK", headers: str = "") -> Serve:
    head = f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + body)
        await writer.drain()
        writer.close()

    return serve


async def hangs(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def floods(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * MOST_BYTES)
        await writer.drain()


async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babbles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 hello\r\n\r\n")
    await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ask(serve: Serve) -> Poll:
    async def once() -> Poll:
        async with server(serve) as url, Poller(lambda _: None, lambda: 7.0) as asking:
            return await asking.ask(f"{url}/v1/status")

    return asyncio.run(once())


def test_an_answer_is_read() -> None:
    poll = ask(answer(status()))

    assert (poll.why, poll.at) == ("", 7.0)
    assert poll.queue is not None
    assert poll.queue.summary == "320/512"


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (hangs, "Timeout"),
        (drips, "Timeout"),
        (floods, "TooLarge"),
        (hangs_up, "Unreachable"),
        (babbles, "Unreachable"),
        (answer(b"x" * (MOST_BYTES + 1)), "TooLarge"),
        (answer(b"not found", code="404 Not Found"), "BadAnswer"),
        (answer(b"", code="302 Found", headers="Location: http://169.254.169.254/\r\n"), "BadAnswer"),
        (answer(b"{}"), "BadDocument"),
        (answer(b"\x1f\x8b\x08\x00" + b"\x00" * 100, headers="Content-Encoding: gzip\r\n"), "BadDocument"),
        (answer(b"ok", headers="X-Long: " + "y" * 20_000 + "\r\n"), "Unreachable"),
    ],
)
def test_whatever_a_server_does_is_unknown_for_a_reason_within_the_deadline(serve: Serve, why: str) -> None:
    began = time.monotonic()
    poll = ask(serve)

    assert poll.why == why
    assert poll.message.isprintable()
    assert time.monotonic() - began < 20 * poller.DEADLINE_S


def test_a_port_on_which_nothing_listens_refuses() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def once() -> Poll:
        async with Poller(lambda _: None, lambda: 0.0) as asking:
            return await asking.ask(f"http://127.0.0.1:{port}/v1/status")

    assert asyncio.run(once()).why == "Refused"


def test_only_news_wake_and_a_new_head_begins_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "EVERY_S", 0.01)
    woken: list[tuple[str, str]] = []
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await answer(status(step=12 if asked < 5 else 13))(reader, writer)

    async def scene() -> None:
        async with server(serve) as url, Poller(woken.append, time.time, address=url) as asking:
            asking.poll(KEY, "s", "head-1")
            asking.poll(KEY, "s", "head-1")
            while asked < 10:
                await asyncio.sleep(0.01)
            assert woken == [KEY, KEY]
            assert asking.newest(KEY) is not None
            asking.poll(KEY, "s", "head-2")
            assert asking.newest(KEY) is None
            asking.stop(KEY)
            assert asking.newest(KEY) is None

    asyncio.run(scene())


def test_the_last_step_of_a_driver_that_has_gone_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status is written every five seconds at most: the port may be closed by then."""
    monkeypatch.setattr(poller, "EVERY_S", 0.01)

    async def scene() -> None:
        async with server(answer(status(step=1500))) as url, Poller(lambda _: None, time.time, address=url) as asking:
            asking.poll(KEY, "s", "head-1")
            while asking.newest(KEY) is None:
                await asyncio.sleep(0.001)
            monkeypatch.setattr(asking, "ask", refused)
            while (newest := asking.newest(KEY)) is None or not newest.why:
                await asyncio.sleep(0.001)
            assert newest.queue is None
            assert newest.progress is not None
            assert newest.progress.step == 1500

    async def refused(_: str) -> Poll:
        return Poll(at=time.time(), why="Refused")

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_one_answer_that_fails_to_come_is_passed_over_and_two_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "EVERY_S", 0.01)
    asked = 0
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        bad = asked == 3 or asked >= 6
        await answer(b"", code="500 Oops")(reader, writer) if bad else await answer(status())(reader, writer)

    async def scene() -> None:
        async with server(serve) as url, Poller(lambda _: None, time.time, address=url) as asking:
            asking.poll(KEY, "s", "head-1")
            while asked < 12:
                newest = asking.newest(KEY)
                if newest is not None and seen[-1:] != [newest.why]:
                    seen.append(newest.why)
                await asyncio.sleep(0.001)

    asyncio.run(scene())

    assert seen == ["", "BadAnswer"]
