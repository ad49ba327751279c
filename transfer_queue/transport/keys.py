"""The CURVE keys of a run: one pair for the server, one for all its clients."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Keys:
    """Z85 text. The server lets in who has the clients' pair, and nobody else."""

    server_public: str
    server_secret: str = field(repr=False)
    client_public: str
    client_secret: str = field(repr=False)

    @classmethod
    def make(cls) -> Keys:
        """New keys for a run."""
        import zmq

        pairs = [*zmq.curve_keypair(), *zmq.curve_keypair()]
        return cls(*(key.decode() for key in pairs))

    def for_clients(self) -> dict[str, str]:
        """What a `controller_info` carries of them. It travels by Ray calls; never into logs or the journal."""
        return {
            "server_key": self.server_public,
            "client_key": self.client_public,
            "client_secret": self.client_secret,
        }
