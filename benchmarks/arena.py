"""How fast values enter and leave arenas, within one process: `python -m benchmarks.arena [FOLDER]`.

256 rows of 1 KB, 64 KB and 1 MB: written as one frame into memory that was never touched, and the third time in the
same place; gathered in random order, from one put and from 256 puts. Then what finding room and giving it back costs.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from transfer_queue.storage.arena import Arena, Extent
from transfer_queue.storage.extents import Extents
from transfer_queue.storage.reader import Reader
from transfer_queue.storage.run_folder import RunFolder, choose

ROWS = 256
SIZES = {"1 KB": 2**10, "64 KB": 2**16, "1 MB": 2**20}
REPEATS = 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(parent: Path, size: int) -> list[float]:
    """GB/s: a plain warm copy; written cold and warm; gathered first, warm from one put, warm from a put a row."""
    folder = RunFolder.make(parent)
    paths: list[str] = []

    def attach(path: str, length: int) -> int:
        paths.append(path)
        return len(paths) - 1

    arena = Arena(folder.path, "bench", attach, lambda segment: None)
    data = np.random.default_rng(0).integers(0, 256, (ROWS, size), np.uint8)
    order = np.random.default_rng(1).permutation(ROWS)
    extents: list[Extent] = []
    target = data.copy()
    copied = statistics.median(seconds(lambda: np.copyto(target, data)) for _ in range(REPEATS))

    def write() -> None:
        arena.recycle(extents)
        extents[:] = arena.write([data])

    cold, _ = seconds(write), seconds(write)
    warm = statistics.median(seconds(write) for _ in range(REPEATS))
    whole = extents[0]
    together = np.array([(whole.segment, whole.offset + row * size, size) for row in order.tolist()])
    apart = np.array([arena.write([row])[0] for row in data])[order]
    reader = Reader(paths.__getitem__)
    first = seconds(lambda: reader.gather(together))
    for rows in (together, apart):
        assert (reader.gather(rows) == data[order].reshape(-1)).all()
    gathered = [
        statistics.median(seconds(lambda r=rows: reader.gather(r)) for _ in range(REPEATS))
        for rows in (together, apart)
    ]
    folder.remove()
    return [data.nbytes / each / 1e9 for each in (copied, cold, warm, first, *gathered)]


def microseconds_of_allocation(holes: int) -> float:
    """One allocation of a megabyte and its return, beside that many free ranges of 1000 bytes."""
    extents, places = Extents(), []
    extents.add(0, 2**32)
    for _ in range(2 * holes):
        places.append(extents.allocate(1000))
    for place in places[::2]:
        assert place is not None
        extents.free(*place, 1000)

    def once() -> None:
        place = extents.allocate(2**20)
        assert place is not None
        extents.free(*place, 2**20)

    return 1e6 * statistics.median(seconds(once) for _ in range(5000))


def main() -> None:
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else choose(2**30).path
    print(f"{ROWS} rows in {parent}, GB/s (free: {shutil.disk_usage(parent).free / 1e9:.0f} GB)")
    print(
        "| row | plain copy | write, cold | write, third time | gather, first | gather, one put | gather, a put a row |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        runs = np.array([measure(parent, size) for _ in range(5)])
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in np.median(runs, axis=0)) + " |", flush=True)
    for holes in (0, 1000, 100_000):
        print(f"allocate and free beside {holes} holes: {microseconds_of_allocation(holes):.1f} us")


if __name__ == "__main__":
    main()
