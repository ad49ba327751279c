"""The loop: who wakes it, what it calls and when, and how it ends."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.transfer_queue.transport.serving import Answering, serving, until
from transfer_queue.server import Server


def test_posted_work_is_done_and_settled_and_submitted_work_answers() -> None:
    with serving([]) as server:
        assert server.submit(lambda: threading.current_thread().name).result(20) != threading.current_thread().name
        with pytest.raises(ZeroDivisionError):
            server.submit(lambda: 1 // 0).result(20)
        link = Recorded()
        server.post(lambda: server.receiver.received(link, [b"\xc1"]))
        until(lambda: link.sent == [[b"\xc1"]])


def test_work_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with serving([]) as server:
        server.post(lambda: 1 // 0)  # type: ignore[arg-type]

        assert server.submit(lambda: 3).result(20) == 3
    assert "ZeroDivisionError" in caplog.text


def test_a_deadline_wakes_the_loop_and_a_tick_ends_it() -> None:
    with serving([]) as server:
        ticks = server.submit(lambda: server.receiver.ticks).result(20)
        server.submit(lambda: setattr(server.receiver, "deadline", time.monotonic() + 0.05)).result(20)
        until(lambda: server.receiver.deadline is None)

        assert server.receiver.ticks > ticks


def test_a_deadline_that_stays_in_the_past_does_not_keep_a_core_busy() -> None:
    class Late(Answering):
        def tick(self) -> None:
            self.ticks += 1

        def next_deadline(self) -> float | None:
            return 0.0

    server = Server(lambda _post: Late(), [])
    thread = threading.Thread(target=server.run)
    thread.start()
    time.sleep(0.2)
    server.stop()
    thread.join(20)

    assert 1 < server.receiver.ticks < 400


def test_it_ends_when_its_parents_pipe_closes_or_it_is_not_wanted() -> None:
    read, write = os.pipe()
    server = Server(lambda _post: Answering(), [])
    thread = threading.Thread(target=server.run, args=(read,))
    thread.start()
    os.write(write, b"not the end")
    assert server.submit(lambda: 1).result(20) == 1
    os.close(write)
    thread.join(20)
    os.close(read)
    Server(lambda _post: Answering(), []).run(still_wanted=lambda: False)

    assert not thread.is_alive()


def test_work_posted_after_the_end_touches_no_descriptor(tmp_path: Path) -> None:
    server = Server(lambda _post: Answering(), [])
    server.stop()
    server.run()
    with open(tmp_path / "other", "wb", buffering=0) as other, open(tmp_path / "more", "wb", buffering=0):
        server.post(lambda: None)
        server.stop()

        assert os.fstat(other.fileno()).st_size == 0
    assert (tmp_path / "more").stat().st_size == 0


def test_later_comes_in_order_of_time() -> None:
    done: list[str] = []
    with serving([]) as server:
        now = time.monotonic()

        def plan() -> None:
            server.later(now + 0.04, lambda: done.append("second"))
            server.later(now + 0.02, lambda: done.append("first"))
            server.soon(lambda: done.append("soon"))

        server.post(plan)
        until(lambda: len(done) == 3)

    assert done == ["soon", "first", "second"]


class Recorded:
    """A link that keeps what it is sent."""

    key = 1

    def __init__(self) -> None:
        self.sent: list[list[object]] = []

    def send(self, parts: object) -> bool:
        assert isinstance(parts, list)
        self.sent.append(parts)
        return True

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        raise AssertionError("nobody asked for this")
