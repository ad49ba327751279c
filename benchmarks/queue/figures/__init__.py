"""The figures by name, in the order in which they are measured: first those beside the peer, then ours alone."""

from benchmarks.queue.bench import Measure
from benchmarks.queue.figures import alone, beside, durable, ray

FIGURES: dict[str, Measure] = {
    "start": beside.start,
    "get_meta": beside.get_meta,
    "put_one": beside.put_one,
    "stream": beside.stream,
    "put": beside.put,
    "get_data": beside.get_data,
    "wake": alone.wake,
    "waiters": alone.waiters,
    "clients": alone.clients,
    "quickstart": alone.quickstart,
    "journal": durable.journal,
    "compaction": durable.compaction,
    "ray_actor": ray.actor,
    "ray_plane": ray.plane,
}
