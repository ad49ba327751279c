"""How long ``import twinkle`` and ``import transfer_queue`` take, each in a new interpreter."""

import subprocess
import sys

from benchmarks.table import Figure, best_below

RUNS = 7


def seconds_to_import(module: str) -> float:
    """Wall seconds that the import statement alone takes in a new interpreter."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def measure() -> list[Figure]:
    """The two figures."""
    figures = []
    for module, limit in (("twinkle", 150.0), ("transfer_queue", 100.0)):
        values = [1000 * seconds_to_import(module) for _ in range(RUNS)]
        figures.append(best_below(f"import {module}", values, limit, "ms"))
    return figures
