"""Where things run: device groups, device meshes, and the mode that binds them to machines."""

from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.runtime import Runtime, current_runtime, initialize

__all__ = ["DeviceGroup", "DeviceMesh", "Runtime", "current_runtime", "initialize"]
