"""One small message to another process and back over the queue's own transport, beside the same over pyzmq alone.

``python -m benchmarks.transport``: a server whose receiver answers at once, and a client, both as the queue uses them.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import echo
from transfer_queue import wire
from transfer_queue.connection import Connection
from transfer_queue.server import Server
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.framing import Frame
from transfer_queue.transport.link import Link
from transfer_queue.transport.unix import UnixListener
from transfer_queue.wire import Done, GetStats, Reply, Request

ROUND_TRIPS = 5000


class Echo:
    """Answers each request with a short reply when its burst is settled."""

    def __init__(self) -> None:
        self._replies: list[tuple[Link, bytes]] = []

    def received(self, link: Link, parts: list[Frame]) -> None:
        """Keep the reply until the burst is settled."""
        request: Request = wire.decode_request(parts[0])
        self._replies.append((link, wire.encode(Reply(request.sequence, Done()))))

    def gone(self, link: Link) -> None:
        """Nothing is kept of a link."""

    def tick(self) -> None:
        """Nothing has a deadline."""

    def settle(self) -> None:
        """Let the replies go."""
        replies, self._replies = self._replies, []
        for link, reply in replies:
            link.send([reply])

    def next_deadline(self) -> float | None:
        """Nothing has a deadline."""
        return None


def serve(path: str) -> None:
    """Answer every request, until killed."""
    Server(lambda _post: Echo(), [UnixListener(path, Descriptors())]).run()


def microseconds() -> list[float]:
    """Each of the round trips, in order of length."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/queue"
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.transport", path], cwd=Path(__file__).parents[1])
        try:
            connection = Connection({"endpoint": f"unix://{path}", "durable": True})  # so that its start is waited for
            times = sorted(1e6 * _round_trip(connection) for _ in range(ROUND_TRIPS))
            connection.close()
        finally:
            process.kill()
            process.wait()
    return times


def _round_trip(connection: Connection) -> float:
    began = time.perf_counter()
    connection.call("me", GetStats(), [], 60.0, lambda: "it waited")
    return time.perf_counter() - began


def main() -> None:
    """Both, interleaved, three times."""
    for _ in range(3):
        times = microseconds()
        print(f"transfer_queue: p50 {statistics.median(times):.1f} us, p10 {times[len(times) // 10]:.1f} us")
        print(f"pyzmq over ipc: p50 {1000 * echo.median_ms():.1f} us")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        main()
