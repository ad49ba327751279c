"""From a constructor call to actors: claim what the group has, start them, tell each its rank, build the objects."""

import inspect
import secrets
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from twinkle.infra.actors import Actors, travelling
from twinkle.infra.cluster import Cluster, Reservation
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.garbage import close_soon
from twinkle.infra.handle import Handle
from twinkle.infra.host import THREADS, Host
from twinkle.infra.layout import Layout, named
from twinkle.infra.placement import plan, seats
from twinkle.infra.rank import Rank
from twinkle.infra.remote import CLASS_MARK, RemoteClass
from twinkle.infra.waiting import Expected, call_site

START_S = 120.0
"""How long the processes may take to start."""
BUILD_S = 1800.0
"""How long the objects may take to be built, e.g. to load their model."""

HostActor = ray.remote(concurrency_groups=THREADS)(Host)


def start(cls: type[Any], bound: inspect.BoundArguments, group: DeviceGroup, cluster: Cluster) -> Handle:
    """The handle of a new object on a device group. Whatever goes wrong, nothing is left behind."""
    spec: RemoteClass = getattr(cls, CLASS_MARK)
    layout = Layout(bound.arguments["device_mesh"], spec.actors == "replica")
    if layout.whole_replicas:
        bound.arguments["device_mesh"] = layout.mesh.replica
    with ExitStack() as undo:
        reservation = cluster.claim(group, plan(group, layout.ranks_per_actor), cls.__name__)
        undo.callback(cluster.release, reservation)
        actors = Actors(cls, group, layout, _hosts(cls, spec, reservation, layout), [], cluster.call_timeout_s)
        undo.callback(actors.close)
        _build(actors, bound, cluster.env)
        close = undo.pop_all().close
    handle = Handle(actors, close)
    cluster.objects.add(handle)
    weakref.finalize(handle, close_soon, close).atexit = False
    return handle


def _hosts(cls: type[Any], spec: RemoteClass, reservation: Reservation, layout: Layout) -> list[Any]:
    """An actor in each seat, which takes what its ranks need."""
    group = reservation.group
    needs = group.resources(layout.ranks_per_actor)
    takes = {"num_cpus": needs.pop("CPU", 0), "num_gpus": needs.pop("GPU", 0), "resources": needs}
    bundles = seats(reservation.plan, reservation.nodes(), layout.together)
    mark = secrets.token_hex(4)
    return [
        HostActor.options(
            **takes,
            max_concurrency=spec.concurrency,
            name=f"twinkle {cls.__name__} {group.name} rank {ranks[0]} {mark}",
            scheduling_strategy=PlacementGroupSchedulingStrategy(reservation.bundles, bundle),
        ).remote(f"{cls.__name__} {named(ranks)}")
        for ranks, bundle in zip(layout.ranks, bundles, strict=True)
    ]


def _build(actors: Actors, bound: inspect.BoundArguments, env: Mapping[str, str]) -> None:
    """Build the objects, each in a process that knows its rank, and note where these are."""
    layout, cls, hosts = actors.layout, actors.cls, actors.handles
    names, site = [actors.name(index) for index in range(len(hosts))], call_site()
    meet = not layout.whole_replicas
    asked = [host.machine.remote(meet and host is hosts[0]) for host in hosts]
    machines = actors.machines = Expected(f"the start of {cls.__name__}", asked, names, site).get(START_S)
    payload, variables = ray.put((bound.args[1:], bound.kwargs)), travelling(env)
    building = []
    for host, ranks, at in zip(hosts, layout.ranks, machines, strict=True):
        rank = Rank(tuple(ranks), layout.mesh, actors.group, at.node, at.devices, machines[0].address, machines[0].port)
        building.append(host.build.remote(cls, payload, rank, variables))
    Expected(f"{cls.__name__}(...)", building, names, site).get(BUILD_S)
