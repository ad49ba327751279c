import socket
import ssl
import threading
from pathlib import Path

import pytest

from e2e import configuration, environment
from e2e.authority import Authority


def test_a_server_and_a_client_of_one_authority_trust_each_other(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    served.verify_mode = ssl.CERT_REQUIRED
    served.load_cert_chain(*authority.issue("server", "server", hosts=["127.0.0.1"]))
    asks = ssl.create_default_context(cafile=str(authority.certificate))
    asks.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    asks.load_cert_chain(*authority.issue("client", "alice", groups=["team"]))
    names = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with served.wrap_socket(connection, server_side=True) as secure:
            names.append(dict(part[0] for part in secure.getpeercert()["subject"]))  # type: ignore[index,misc]
            secure.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as plain,
            asks.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            assert secure.recv(5) == b"hello"
        thread.join(timeout=10)

    assert names == [{"organizationName": "team", "commonName": "alice"}]


def test_what_the_host_lends_does_not_overlap_and_is_read_only() -> None:
    places = environment.places()

    assert environment.REPOSITORY in places
    assert not [place for place in places for other in places if other in place.parents]
    assert all("ro" in mount["options"] for mount in environment.mounts())  # type: ignore[operator]


def test_containers_keep_containerds_mounts_and_lose_its_limit_of_files() -> None:
    default = {"process": {"cwd": "/", "rlimits": [{}]}, "mounts": [{"destination": "/proc"}]}

    made = configuration.container(default)

    assert made["process"] == {"cwd": "/"}
    assert made["mounts"] == [{"destination": "/proc"}, *environment.mounts()]


def test_a_checkout_that_pods_would_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "REPOSITORY", Path("/tmp/twinkle"))

    assert Path("/tmp/twinkle") in environment.hidden()
