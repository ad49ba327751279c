"""`make bench-queue`: measure, check, write `benchmarks/results/queue.{json,md}`; 1 if a figure was missed."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback

from benchmarks.queue.bench import Bench
from benchmarks.queue.figures import FIGURES
from benchmarks.queue.system import NotThere
from benchmarks.table import Figure, missing, shown, write

TITLE = "The queue beside TransferQueue 0.1.11"


def main() -> int:
    """Measure the figures that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"any of: {' '.join(FIGURES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, two repetitions: does it run?")
    parser.add_argument("--repetitions", type=int, help="how often each side is measured (default 5)")
    options = parser.parse_args()
    unknown = [name for name in options.figures if name not in FIGURES]
    if unknown:
        parser.error(f"no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    names = options.figures or list(FIGURES)
    whole = not options.quick and not options.figures
    stem = "queue" if whole else "queue-part"
    command = "make bench-queue" if whole else f"python -m benchmarks.queue {' '.join(sys.argv[1:])}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the driven processes end too
    bench = Bench(options.repetitions or (2 if options.quick else 5), options.quick)
    try:
        figures: list[Figure] = []
        for name in names:
            figures += _measure(name, bench)
            write(stem, TITLE, command, figures)
    finally:
        bench.close()
    if bench.echoes:
        figures.append(shown("pyzmq echo during the run: how fast the machine was", bench.echoes, "ms"))
    print(write(stem, TITLE, command, figures).read_text())
    return int(not all(figure.reached for figure in figures))


def _measure(name: str, bench: Bench) -> list[Figure]:
    print(f"{name} ...", flush=True)
    what = f"{name}: {str(FIGURES[name].__doc__).splitlines()[0].rstrip('.')}"
    try:
        return FIGURES[name](bench)
    except NotThere as reason:
        return [missing(what, "to be measured", f"not there yet: {reason}")]
    except Exception as error:  # noqa: BLE001 - the other figures are still wanted
        traceback.print_exc()
        bench.close()
        return [missing(what, "to be measured", f"did not run: {str(error).strip().splitlines()[-1]}")]


if __name__ == "__main__":
    sys.exit(main())
