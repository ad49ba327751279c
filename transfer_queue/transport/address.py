"""What a `controller_info` says about how to reach a controller. Nothing here prints a secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transfer_queue.errors import ConfigurationError

UNIX = "unix://"
TCP = "tcp://"


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs to be let in over TCP: the server's public key and a pair of its own (Z85 text)."""

    server_public: str
    client_public: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a controller listens. `keys` are there for TCP; `durable`: it comes back at this address if it dies."""

    endpoint: str
    keys: ClientKeys | None = None
    durable: bool = False

    @property
    def path(self) -> str | None:
        """The path of a unix socket, or None."""
        return self.endpoint.removeprefix(UNIX) if self.endpoint.startswith(UNIX) else None


def address_of(info: Mapping[str, Any]) -> Address:
    """The address in a `controller_info`; one with both a unix and a TCP address means the unix one where it exists.

    `endpoint` is `unix:///path` or `tcp://host:port`; a controller that listens on both says the latter in
    `tcp_endpoint`. TCP needs `server_key`, `client_key` and `client_secret`.
    """
    given: object = info
    endpoint = given.get("endpoint") if isinstance(given, Mapping) else None
    if not isinstance(endpoint, str) or not endpoint.startswith((UNIX, TCP)):
        raise ConfigurationError(
            f"controller_info {_shape(info)} is not what controller.get_info() returns (with Ray: "
            "ray.get(controller.get_info.remote()))"
        )
    durable = info.get("durable") is True
    other = info.get("tcp_endpoint")
    if endpoint.startswith(UNIX) and (other is None or os.path.exists(endpoint.removeprefix(UNIX))):
        return Address(endpoint, None, durable)
    words = [info.get(name) for name in ("server_key", "client_key", "client_secret")]
    if not all(isinstance(word, str) and len(word) == 40 for word in words):
        raise ConfigurationError(
            f"controller_info {_shape(info)} names a TCP address without its three keys: hand it over whole, as "
            "controller.get_info() returns it"
        )
    return Address(endpoint if endpoint.startswith(TCP) else str(other), ClientKeys(*map(str, words)), durable)


def _shape(info: object) -> str:
    """What may be printed of it: the names, never the values."""
    if isinstance(info, Mapping):
        return f"with {', '.join(sorted(map(str, info))) or 'nothing in it'}"
    return f"of type {type(info).__name__}"
