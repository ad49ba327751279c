"""A process with a server that answers: `python -m … PATH [LIMIT]`; prints one line when it listens."""

import resource
import sys

from tests.transfer_queue.transport.serving import Answering
from transfer_queue.server import Server
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.keys import Keys
from transfer_queue.transport.link import Listener
from transfer_queue.transport.unix import UnixListener


def main(address: str, limit: str = "", *keys: str) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    listener: Listener
    if address.startswith("tcp://"):
        from transfer_queue.transport.tcp import TcpListener

        listener = TcpListener(address, Keys(*keys), Descriptors())
        print(listener.endpoint, flush=True)
    else:
        listener = UnixListener(address, Descriptors())
        print(f"unix://{address}", flush=True)
    Server(lambda _post: Answering(), [listener]).run(sys.stdin.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
