"""``make bench``: the figures of the laptop quickstart and of learning, to ``benchmarks/results``."""

import sys

from benchmarks import imports, learning, quickstart
from benchmarks.table import write


def main() -> int:
    """Measure, write, print; 1 when a figure was missed."""
    laptop = imports.measure() + quickstart.measure()
    print(write("quickstart", "The quickstart on a laptop", "make bench", laptop).read_text())
    matrix = learning.measure()
    print(write("learning", "Learning, medians of three seeds", "make bench", matrix).read_text())
    return int(not all(figure.reached for figure in laptop + matrix))


if __name__ == "__main__":
    sys.exit(main())
