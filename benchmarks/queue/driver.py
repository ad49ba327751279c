"""A process of one system: takes orders as lines of JSON on stdin, does the work, answers with lines of JSON on stdout.

`python -P -m benchmarks.queue.driver ours` (or `peer`) with a PYTHONPATH on which `transfer_queue` is the right one.
An answer is {"result": ...}, {"missing": why} for what the system does not have, or {"error": traceback}.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from typing import Any

from benchmarks.queue.system import NotThere


def main(name: str) -> None:
    """Serve orders until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray and others print to stdout, which belongs to the answers
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    system = getattr(importlib.import_module(f"benchmarks.queue.{name}"), name.capitalize())()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(system, json.loads(line))) + "\n")


def _answer(system: Any, order: dict[str, Any]) -> dict[str, Any]:
    module, _, function = order["work"].rpartition(".")
    try:
        if not module:
            result = getattr(system, function)(**order["arguments"])
        else:
            work = importlib.import_module(f"benchmarks.queue.work.{module}")
            result = getattr(work, function)(system, **order["arguments"])
    except NotThere as reason:
        return {"missing": str(reason)}
    except Exception:  # noqa: BLE001 - it is the answer
        return {"error": traceback.format_exc()}
    return {"result": result}


if __name__ == "__main__":
    main(sys.argv[1])
