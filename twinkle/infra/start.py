"""From a constructor call to actors: claim what the group has, start them, tell each its rank, build the objects."""

import inspect
import secrets
import weakref
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from twinkle.infra.actors import Actors, travelling
from twinkle.infra.cluster import Cluster, Reservation
from twinkle.infra.device_group import RESOURCES, DeviceGroup
from twinkle.infra.device_mesh import DeviceMesh
from twinkle.infra.garbage import close_soon
from twinkle.infra.handle import Handle
from twinkle.infra.host import URGENT, URGENT_THREADS, Host, Machine
from twinkle.infra.placement import plan, seats
from twinkle.infra.rank import Rank
from twinkle.infra.remote import CLASS_MARK, RemoteClass
from twinkle.infra.waiting import Expected, call_site

START_S = 120.0
"""How long the processes may take to start."""
BUILD_S = 1800.0
"""How long the objects may take to be built, e.g. to load their model."""

HostActor = ray.remote(concurrency_groups={URGENT: URGENT_THREADS})(Host)


def start(cls: type[Any], bound: inspect.BoundArguments, group: DeviceGroup, cluster: Cluster) -> Handle:
    """The handle of a new object on a device group. Whatever goes wrong, nothing is left behind."""
    spec: RemoteClass = getattr(cls, CLASS_MARK)
    mesh: DeviceMesh = bound.arguments["device_mesh"]
    size = mesh.model_size if spec.actors == "replica" else 1
    ranks = [range(first, first + size) for first in range(0, mesh.world_size, size)]
    if spec.actors == "replica":
        bound.arguments["device_mesh"] = mesh.replica
    reservation = cluster.claim(group, plan(group, size), cls.__name__)
    try:
        together = mesh.model_size // size
        handles = _hosts(cls, spec, reservation, ranks, together)
        actors = _built(cls, bound, group, mesh, handles, ranks, cluster)
    except BaseException:
        cluster.release(reservation)
        raise

    def close() -> None:
        if not actors.closed:
            actors.close()
            cluster.release(reservation)

    handle = Handle(actors, close)
    cluster.objects.add(handle)
    weakref.finalize(handle, close_soon, close).atexit = False
    return handle


def _hosts(
    cls: type[Any], spec: RemoteClass, reservation: Reservation, ranks: Sequence[range], together: int
) -> list[Any]:
    group = reservation.group
    needs = group.resources(len(ranks[0]))
    options: dict[str, Any] = {
        "num_cpus": needs.get("CPU", 0),
        "num_gpus": needs.get("GPU", 0),
        "resources": {name: needs[name] for name in RESOURCES.values() if name in needs and name != "GPU"},
        "max_concurrency": spec.concurrency,
        "max_restarts": 0,
    }
    mark = secrets.token_hex(4)
    return [
        HostActor.options(
            **options,
            name=f"twinkle {cls.__name__} {group.name} rank {its_ranks[0]} {mark}",
            scheduling_strategy=PlacementGroupSchedulingStrategy(reservation.bundles, bundle),
        ).remote()
        for its_ranks, bundle in zip(ranks, seats(reservation.plan, reservation.nodes(), together), strict=True)
    ]


def _built(
    cls: type[Any],
    bound: inspect.BoundArguments,
    group: DeviceGroup,
    mesh: DeviceMesh,
    handles: list[Any],
    ranks: Sequence[range],
    cluster: Cluster,
) -> Actors:
    """Actors whose objects are built, each in a process that knows its rank."""
    actors = Actors(cls, group, mesh, handles, ranks, [], cluster.call_timeout_s)
    names = [actors.name(index) for index in range(len(handles))]
    site = call_site()
    meet = len(ranks[0]) == 1
    asked = [each.machine.remote(meet and each is handles[0]) for each in handles]
    actors.machines = machines = Expected(f"the start of {cls.__name__}", asked, names, site).get(START_S)
    env = travelling(cluster.env)
    payload = ray.put((bound.args[1:], bound.kwargs))
    building = [
        each.build.remote(cls, payload, _rank(its_ranks, mesh, group, machine, machines[0]), env)
        for each, its_ranks, machine in zip(handles, ranks, machines, strict=True)
    ]
    Expected(f"{cls.__name__}(...)", building, names, site).get(BUILD_S)
    return actors


def _rank(ranks: range, mesh: DeviceMesh, group: DeviceGroup, machine: Machine, first: Machine) -> Rank:
    return Rank(tuple(ranks), mesh, group, machine.node, machine.devices, first.address, first.port)
