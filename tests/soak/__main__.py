"""`python -m tests.soak --seconds 600 --seed 1`: storm, reckoning, report; exits 1 if anything was lost or doubled."""

import argparse
import logging
import shutil
import statistics
import sys
import time

from benchmarks.table import Figure, largest_at_most, shown, write
from tests.soak.storm import ALL_POINTS, Report, Storm

FLAT = 0.5
"""MiB a minute that the controller may grow by, by least squares over the second half of the calm."""
LONG_ENOUGH_S = 60.0
"""A slope over less says nothing."""
JOURNAL = 32 << 20


def slope(report: Report) -> float:
    """How the controller grew, in MiB a minute; 0 where the time was too short to say."""
    samples = report.memory[len(report.memory) // 2 :]
    if len(samples) < 10 or samples[-1][0] - samples[0][0] < LONG_ENOUGH_S:
        return 0.0
    return 60 * statistics.linear_regression(*zip(*samples, strict=True)).slope / 2**20


def judge(report: Report) -> list[str]:
    """What is wrong, in sentences."""
    found = list(report.faults)
    found += [f"the point {point} was not hit" for point in report.unhit]
    if slope(report) > FLAT:
        found.append(f"the controller grew by {slope(report):.1f} MiB a minute in the calm")
    if report.journal and max(report.journal) > JOURNAL:
        found.append(f"the journal grew to {max(report.journal)} bytes")
    return found


def figures(report: Report, wrong: list[str]) -> list[Figure]:
    """The report as a table."""
    memory = [size / 2**20 for _, size in report.memory] or [0.0]
    journal = [size / 2**20 for size in report.journal] or [0.0]
    found = [
        largest_at_most("faults", [float(len(wrong))], 0, ""),
        shown("rows put", [float(report.rows_put)], ""),
        *(shown(f"rows consumed by {task}", [float(count)], "") for task, count in report.consumed.items()),
        shown("controllers brought back", [float(report.restarts)], ""),
        shown("deaths of producers and consumers", [float(report.deaths)], ""),
        shown("checkpoints read back", [float(report.checkpoints)], ""),
        shown("steps cleared, a producer having died within a group", [float(report.cleared)], ""),
        shown("moments at which the counts added up", [float(report.checks)], ""),
        shown("controller, resident, in the calm", memory, "MiB"),
        largest_at_most("controller, growth in the second half of the calm", [slope(report)], FLAT, "MiB/min"),
        largest_at_most("journal, in the calm", journal, JOURNAL / 2**20, "MiB"),
        shown("arenas", [size / 2**20 for size in report.arenas] or [0.0], "MiB"),
    ]
    hit = [(point, float(report.points[point])) for point in ALL_POINTS]
    return found + [Figure(f"SIGKILL at {point}", [times], "", ">= 1", times, times > 0) for point, times in hit]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/soak.md")
    orders = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    print(f"soak: {orders.seconds:g} s, seed {orders.seed}", flush=True)
    storm = Storm(orders.seconds, orders.seed)
    report = storm.run()
    wrong = judge(report)
    table = figures(report, wrong)
    for figure in table:
        print(f"{figure.name}: {figure.summary:g} {figure.unit}")
    if orders.write:
        print(write("soak", f"The queue under SIGKILL for {orders.seconds:g} seconds", "make soak", table))
    for each in wrong[:50]:
        print("FAULT:", each)
    if wrong:
        print(f"{len(wrong)} faults; what the processes noted is in {storm.folder}")
    else:
        shutil.rmtree(storm.folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
