"""What a controller_info means, and that no error shows its secret."""

from pathlib import Path
from typing import Any

import pytest

from transfer_queue import ConfigurationError, TransferQueueClient
from transfer_queue.transport.address import address_of
from transfer_queue.transport.keys import Keys

SECRET = "s" * 40
KEYS = {"server_key": "a" * 40, "client_key": "b" * 40, "client_secret": SECRET}


def test_one_machine_and_many() -> None:
    assert address_of({"endpoint": "unix:///tmp/q", "pid": 1}).path == "/tmp/q"
    remote = address_of({"endpoint": "tcp://h:1", "durable": True, **KEYS})

    assert (remote.path, remote.durable, remote.endpoint) == (None, True, "tcp://h:1")
    assert remote.keys is not None
    assert (remote.keys.server_public, remote.keys.client_public, remote.keys.client_secret) == tuple(KEYS.values())


def test_of_two_addresses_the_socket_is_taken_where_it_exists(tmp_path: Path) -> None:
    info = {"endpoint": f"unix://{tmp_path}/queue", "tcp_endpoint": "tcp://h:1", **KEYS}
    assert address_of(info).endpoint == "tcp://h:1"
    (tmp_path / "queue").touch()

    assert address_of(info).path == f"{tmp_path}/queue"


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ({"endpoint": 3, **KEYS}, "client_key, client_secret, endpoint, server_key"),
        ({"endpoint": "tcp://h:1", **KEYS, "server_key": None}, "without its three keys"),
        ({"endpoint": "tcp://h:1", "client_secret": SECRET}, "without its three keys"),
        ({}, "nothing in it"),
        ([SECRET], "of type list"),
    ],
)
def test_errors_name_what_is_there_and_never_its_values(info: Any, named: str) -> None:
    for make in (address_of, lambda each: TransferQueueClient("me", each)):
        with pytest.raises(ConfigurationError, match=named) as raised:
            make(info)
        assert SECRET not in str(raised.value)


def test_nothing_that_holds_a_secret_prints_it() -> None:
    keys = Keys.make()
    address = address_of({"endpoint": "tcp://h:1", **keys.for_clients()})
    printed = f"{keys} {keys!r} {address} {address!r}"

    assert keys.client_secret not in printed
    assert keys.server_secret not in printed
    assert keys.server_public in printed
    assert Keys.make() != keys
