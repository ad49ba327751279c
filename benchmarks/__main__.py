"""``make bench``: every figure of the laptop quickstart, to ``benchmarks/results/quickstart.{json,md}``."""

import sys

from benchmarks import imports, quickstart
from benchmarks.table import write


def main() -> int:
    """Measure, write, print; 1 when a figure was missed."""
    figures = imports.measure() + quickstart.measure()
    print(write("quickstart", "The quickstart on a laptop", "make bench", figures).read_text())
    return int(not all(figure.reached for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
