"""How fast this machine is at the moment: one small message to another process and back, with nothing but pyzmq.

Time in the queue is made of such round trips; the machine that the targets were set on needed 30 microseconds for one.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

ROUND_TRIPS = 2000


def serve(endpoint: str) -> None:
    """Send every message back, until killed."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        while True:
            router.send_multipart(router.recv_multipart())


def median_ms() -> float:
    """Median round trip in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/echo"
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo", endpoint], cwd=Path(__file__).parents[1])
        try:
            with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
                dealer.connect(endpoint)
                times = [_round_trip(dealer) for _ in range(ROUND_TRIPS)]
        finally:
            process.kill()
            process.wait()
    return 1000 * statistics.median(times)


def _round_trip(dealer: "zmq.Socket[bytes]") -> float:
    began = time.perf_counter()
    dealer.send(b"x" * 100)
    assert dealer.recv() == b"x" * 100
    return time.perf_counter() - began


if __name__ == "__main__":
    serve(sys.argv[1])
