"""What a device group costs: `python -m benchmarks.samplers.dispatch`.

10,000 items through 8 live actors and back, and one small call through a handle beside the same call in this process.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import twinkle
from benchmarks.table import Figure, median_at_most, shown
from twinkle import DeviceGroup, DeviceMesh, remote_class, remote_function

ACTORS = 8
ITEMS = 10_000
REPEATS, CALLS = 15, 300
DISPATCH_LIMIT_MS, CALL_LIMIT_MS = 100.0, 3.0


@remote_class(actors="replica")
class Echo:
    """Gives back what it gets."""

    def __init__(self, device_mesh: DeviceMesh | None = None, remote_group: str | None = None) -> None:
        pass

    @remote_function(dispatch="slice_dp")
    def echo(self, items: list[Any]) -> list[Any]:
        return items


@contextmanager
def handle(ranks: int) -> Iterator[Echo]:
    """An Echo with so many replicas, on the Ray at hand or on a new one."""
    twinkle.initialize("ray", [DeviceGroup("echo", ranks, "cpu", cpus_per_rank=0)])
    try:
        yield Echo(device_mesh=DeviceMesh.from_sizes(dp_size=ranks), remote_group="echo")
    finally:
        twinkle.initialize("local")


def milliseconds(echo: Echo, items: list[Any]) -> float:
    """One call, whose result has to be the items in their order."""
    start = time.perf_counter()
    found = echo.echo(items)
    took = time.perf_counter() - start
    if found != items:
        raise AssertionError(f"{len(items)} items came back in another order, or others")
    return 1000 * took


def measure(repeats: int = REPEATS, calls: int = CALLS) -> list[Figure]:
    """The figures; order is checked in every call."""
    items = [{"id": index, "prompt": [index % 997] * 8, "text": f"prompt {index}"} for index in range(ITEMS)]
    numbers = list(range(ITEMS))
    one, plain = items[:1], Echo()
    with handle(ACTORS) as echo:
        for warm in (items, numbers, one):
            milliseconds(echo, warm)
        together = [(milliseconds(echo, items), milliseconds(echo, numbers)) for _ in range(repeats)]
        pairs = [(milliseconds(echo, one), milliseconds(plain, one)) for _ in range(calls)]
    rows, plain_numbers = zip(*together, strict=True)
    overhead = [far - near for far, near in pairs]
    ninety_nine = statistics.quantiles(overhead, n=100)[98]
    return [
        median_at_most(f"{ITEMS:,} rows through {ACTORS} actors and back", rows, DISPATCH_LIMIT_MS, "ms"),
        shown(f"{ITEMS:,} integers through {ACTORS} actors and back", plain_numbers, "ms"),
        median_at_most("a call through a handle, less the call itself", overhead, CALL_LIMIT_MS, "ms"),
        shown("the same, 99th percentile", [ninety_nine], "ms"),
    ]


def main() -> None:
    for figure in measure():
        spread = f"{min(figure.values):.2f} - {max(figure.values):.2f}, n={len(figure.values)}"
        verdict = "" if figure.target == "-" else f"; {figure.target}: {'reached' if figure.reached else 'MISSED'}"
        print(f"{figure.name}: {figure.summary:.2f} {figure.unit} ({spread}){verdict}")


if __name__ == "__main__":
    main()
