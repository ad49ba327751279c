"""Where everything is, as text for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.runtime import current_runtime

if TYPE_CHECKING:
    from twinkle.infra.actors import Actors
    from twinkle.infra.cluster import Cluster


def get_device_placement() -> str:
    """The device groups of this process as text: ranks, their nodes, devices and processes, and where in the mesh."""
    runtime = current_runtime()
    if runtime.cluster is None:
        lines = ["mode local: everything runs in this process"]
        return "\n".join(lines + [f"  {_group(each)}" for each in runtime.groups.values()])
    held = {actors.group.name: actors for actors in runtime.cluster.alive()}
    names = list(dict.fromkeys([*runtime.groups, *held]))
    groups = [*runtime.groups.values(), *(held[name].group for name in names if name not in runtime.groups)]
    blocks = [_block(each, held.get(each.name), runtime.cluster) for each in groups]
    return "\n".join(["mode ray", *(line for block in blocks for line in block)])


def _block(group: DeviceGroup, actors: "Actors | None", cluster: "Cluster") -> list[str]:
    if actors is not None:
        whole = f"one actor a {'replica' if actors.layout.whole_replicas else 'rank'}"
        head = f"  {_group(group)}, held by {actors.cls.__name__}: {actors.layout.mesh}, {whole}"
        where = [
            (list(ranks), at.node, at.devices, at.pid)
            for ranks, at in zip(actors.layout.ranks, actors.machines, strict=True)
        ]
        return [head, *(f"    {line}" for line in table(actors.layout.mesh, where))]
    reserved = cluster.reserved.get(group.name)
    if reserved is None:
        return [f"  {_group(group)}, nothing set apart"]
    return [f"  {_group(group)}, free: {reserved.plan} on {', '.join(dict.fromkeys(reserved.node_names()))}"]


def table(mesh: DeviceMesh, where: Sequence[tuple[Sequence[int], str, Sequence[str], int]]) -> list[str]:
    """A line a rank: its place in the mesh, on the axes longer than 1, and the node, devices and process it has.

    ``where`` has the ranks, node, devices and process of each actor; its ranks have its devices in order.
    """
    axes = [axis for axis, size in mesh.sizes().items() if size > 1]
    rows = [["rank", "data", *axes, "node", "device", "process"]]
    for ranks, node, devices, pid in where:
        for index, rank in enumerate(ranks):
            place = mesh.coordinates(rank)
            device = devices[index] if len(devices) == len(ranks) else ",".join(devices) or "cpu"
            rows.append(
                [str(rank), str(mesh.data_rank(rank)), *(str(place[axis]) for axis in axes), node, device, str(pid)]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _group(group: DeviceGroup) -> str:
    return f"device group {group.name!r}: {group.ranks} rank{'s' if group.ranks > 1 else ''} on {group.device_type}"
