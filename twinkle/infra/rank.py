"""What an actor knows of itself: its ranks, its mesh, its devices, and where rank 0 meets the others."""

import socket
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from twinkle.errors import ConfigError
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.layout import named

LOCAL_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Rank:
    """The ranks that this process is.

    Attributes:
        ranks: all ranks of this process: one, or the model ranks of a replica.
        mesh: the mesh of the whole device group.
        group: the device group; None outside of one.
        node: name of the machine.
        devices: indexes of the accelerators that belong to this process.
        address, port: where rank 0 listens when the ranks form a torch process group.
    """

    ranks: Sequence[int] = (0,)
    mesh: DeviceMesh = field(default_factory=DeviceMesh)
    group: DeviceGroup | None = None
    node: str = ""
    devices: Sequence[str] = ()
    address: str = LOCAL_ADDRESS
    port: int = 0

    @property
    def rank(self) -> int:
        """The rank of this process; the first one, where it is several."""
        return self.ranks[0]

    @property
    def world_size(self) -> int:
        """The number of ranks in the group."""
        return self.mesh.world_size

    @property
    def data_rank(self) -> int:
        """Which part of the data this process works on, of ``mesh.data_size``."""
        return self.mesh.data_rank(self.rank)

    def __str__(self) -> str:
        return f"{named(self.ranks)} of {self.world_size}" + (f" in group {self.group.name!r}" if self.group else "")


_current: Rank | None = None
_first_item: ContextVar[int] = ContextVar("first item", default=0)
_held: socket.socket | None = None


def current_rank() -> Rank:
    """The rank of this process; outside the actors of a device group that is rank 0 of 1."""
    return _current or Rank()


def in_actor() -> bool:
    """Whether this process is an actor of a device group."""
    return _current is not None


def first_item() -> int:
    """The caller's index of the first item that this process was given, so that an error names the caller's item; 0
    where all of them were."""
    return _first_item.get()


def serve_from(offset: int) -> None:
    """What this thread does next is for the caller's items from this index on."""
    _first_item.set(offset)


def become(rank: Rank) -> None:
    """Make this process that rank; for actors, once."""
    global _current
    _current = rank


def hold_port(address: str) -> int:
    """Take a free port of this machine and keep it from others until ``torch_environment`` hands it over."""
    global _held
    if _held is None:
        _held = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        _held.bind((address, 0))  # without listening, so that ranks which come early are refused and try again
    port: int = _held.getsockname()[1]
    return port


def torch_environment() -> dict[str, str]:
    """The variables from which ``torch.distributed.init_process_group("env://")`` makes one group of all ranks.

    LOCAL_RANK is 0 everywhere, since an actor sees no devices but its own. In a process outside of any device group it
    is a group of one. ConfigError in an actor that is several ranks: their engine makes its groups itself. The port is
    rank 0's to give: a second process group needs a port of its own.
    """
    global _held
    rank = current_rank()
    if len(rank.ranks) > 1:
        raise ConfigError(f"this actor is {rank}; torch_environment needs actors='rank', one process a rank")
    port = rank.port or hold_port(LOCAL_ADDRESS)
    if rank.rank == 0 and _held is not None:
        _held.close()
        _held = None
    return {
        "MASTER_ADDR": rank.address,
        "MASTER_PORT": str(port),
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }
