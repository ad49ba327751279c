"""Where things run: device groups, device meshes, the mode that binds them to machines, and objects that live there."""

from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.dispatch import Call
from twinkle.infra.futures import Future, submit
from twinkle.infra.rank import Rank, current_rank, torch_environment
from twinkle.infra.remote import remote_class, remote_function
from twinkle.infra.runtime import Runtime, current_runtime, initialize
from twinkle.infra.topology import get_device_placement

__all__ = [
    "Call",
    "DeviceGroup",
    "DeviceMesh",
    "Future",
    "Rank",
    "Runtime",
    "current_rank",
    "current_runtime",
    "get_device_placement",
    "initialize",
    "remote_class",
    "remote_function",
    "submit",
    "torch_environment",
]
