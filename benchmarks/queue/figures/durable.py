"""What the journal costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.queue.bench import Bench, Queue, journal_folder
from benchmarks.queue.figures.beside import WARM_UP, streamed
from benchmarks.table import Figure, median_at_least, median_at_most, missing, shown

ROWS = 1_000_000


def journal(bench: Bench) -> list[Figure]:
    """One-sample throughput with the journal as a share of that without."""
    bench.without_peer()
    figures, count = [], bench.pick(8192, 512)
    for producers in (1, 4):
        off, on = [], []
        for _ in range(bench.repetitions):
            with bench.ours(rows=count) as queue, journal_folder() as folder:
                off.append(_streamed(bench, queue, producers, count))
                with bench.ours(rows=count, journal_dir=folder) as journalled:
                    on.append(_streamed(bench, journalled, producers, count))
        shares = [with_ / without for with_, without in zip(on, off, strict=True)]
        label = f"one-sample throughput, {producers} producer(s), with the journal"
        figures += [shown(label, on, "items/s"), median_at_least(f"{label} against without", shares, 0.75, "x")]
    return figures


def _streamed(bench: Bench, queue: Queue, producers: int, count: int) -> float:
    streamed(bench, queue, producers, 0, WARM_UP)
    return streamed(bench, queue, producers, 1, count)


def compaction(bench: Bench) -> list[Figure]:
    """get_meta among 1e6 rows while rows stream through and the journal is compacted, and beside a checkpoint."""
    bench.without_peer()
    rows, seconds = bench.pick(ROWS, 10_000), bench.pick(60, 5)
    compacted, checkpoints = [], []
    for _ in range(min(3, bench.repetitions)):
        with journal_folder() as folder, bench.ours(rows=rows, partitions=4, samples=8, journal_dir=folder) as queue:
            queue.call("scattered.fill", rows=rows, step=0)
            (other,) = bench.workers(queue, 1)
            other.order("compaction.churn", first_step=1, rows=rows, seconds=seconds)
            order = {"step": 0, "task": "train"}
            compacted.append(queue.call("compaction.latencies", journal=folder, seconds=float(seconds), **order))
            other.result()
            checkpoints.append(queue.call("compaction.beside_checkpoint", path=f"{folder}.checkpoint", **order))
            Path(f"{folder}.checkpoint").unlink()
    what = f"get_meta(32), {rows:.0e} rows,".replace("e+0", "e")
    return [
        _while_compacted(f"{what} while the journal is compacted, p99", compacted, seconds),
        shown("the same, the whole time", [each["p99"] for each in compacted], "ms"),
        shown("the same, the slowest call", [each["largest"] for each in compacted], "ms"),
        shown("compactions meanwhile", [float(each["rewrites"]) for each in compacted], ""),
        median_at_most(f"{what} while a checkpoint is written, p99", [each["p99"] for each in checkpoints], 10, "ms"),
        shown("the same, the slowest call", [each["largest"] for each in checkpoints], "ms"),
        shown("the checkpoint", [each["seconds"] for each in checkpoints], "s"),
    ]


def _while_compacted(name: str, results: list[dict[str, Any]], seconds: int) -> Figure:
    during = [each["p99_during"] for each in results if each["p99_during"] is not None]
    if during:
        return median_at_most(name, during, 10, "ms")
    return missing(name, "median <= 10 ms", f"no compaction was seen in {seconds} s: no file left the journal's folder")
