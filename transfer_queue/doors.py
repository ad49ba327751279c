"""The ways into a controller: a unix socket always, TCP with CURVE where other machines shall come in."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec

from transfer_queue.errors import ConfigurationError
from transfer_queue.transport.address import TCP
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.keys import Keys
from transfer_queue.transport.link import Listener
from transfer_queue.transport.unix import UnixListener

ANYWHERE = ("0.0.0.0", "*", "[::]")
SECRETS = "tcp"
"""A private file beside the socket: address and keys, for a controller that comes back to the same ones."""


class TcpDoor(msgspec.Struct, frozen=True):
    """An address to listen at, and the keys of who may come in."""

    address: str
    keys: Keys

    def info(self, host: str | None = None) -> dict[str, str]:
        """What a `controller_info` says of it; `host` is this machine for others, where the address says "anywhere"."""
        where, _, port = self.address.removeprefix(TCP).rpartition(":")
        if where in ANYWHERE:
            where = host or host_for_others()
        return {"tcp_endpoint": f"{TCP}{where}:{port}", **self.keys.for_clients()}


def check_address(address: object) -> str | None:
    """The address as it is; `ConfigurationError` if nothing can listen there."""
    if address is None:
        return None
    where, _, port = str(address).removeprefix(TCP).rpartition(":")
    if not str(address).startswith(TCP) or not where or not port.isdecimal():
        raise ConfigurationError(f"listen={address!r} is no address: it is tcp://host:port, with port 0 for a free one")
    return str(address)


def listen(path: str, door: TcpDoor | None) -> tuple[list[Listener], TcpDoor | None]:
    """The listeners of a controller, and the door with the port that was free."""
    descriptors = Descriptors()
    listeners: list[Listener] = [UnixListener(path, descriptors)]
    if door is None:
        return listeners, None
    from transfer_queue.transport.tcp import TcpListener

    try:
        tcp = TcpListener(door.address, door.keys, descriptors)
    except BaseException:
        listeners[0].close()
        raise
    return [*listeners, tcp], TcpDoor(tcp.endpoint, door.keys)


def kept_in(folder: Path) -> TcpDoor | None:
    """The door of the controller that was here before."""
    try:
        return msgspec.json.decode((folder / SECRETS).read_bytes(), type=TcpDoor)
    except (OSError, msgspec.DecodeError):
        return None


def keep(folder: Path, door: TcpDoor) -> None:
    """Let a controller that comes back here find its door."""
    file = os.open(folder / SECRETS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(msgspec.json.encode(door))


def host_for_others() -> str:
    """The address of this machine in its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation: only the route counts
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
