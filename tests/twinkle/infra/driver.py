"""A driver that makes objects on device groups, says where they are, and waits to be killed: `ADDRESS FILE`."""

import sys
import threading
from pathlib import Path

from ray import cloudpickle

import twinkle
from tests.twinkle.infra.ray_classes import Ranks, Replicas
from twinkle import DeviceGroup, DeviceMesh


def main(address: str, file: str) -> None:
    groups = [DeviceGroup("ranks", 2, "cpu", cpus_per_rank=0), DeviceGroup("replicas", 2, "cpu")]
    twinkle.initialize("ray", groups, address=address or None)
    replicas = Replicas(device_mesh=DeviceMesh.from_sizes(tp_size=2), remote_group="replicas")
    handles = [Ranks(remote_group="ranks"), replicas]
    Path(f"{file}.part").write_bytes(cloudpickle.dumps(handles))
    Path(f"{file}.part").rename(file)
    print(*(each["pid"] for handle in handles for each in handle.whoami()), flush=True)
    threading.Event().wait(100)


main(*sys.argv[1:])
