"""From ``git clone`` to a trained model with ``make run``, packages downloaded anew, in an empty folder.

Not part of ``make bench`` (it downloads gigabytes): ``.venv/bin/python -m benchmarks.fresh_clone``.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.table import largest_at_most, write
from twinkle.loop.run_folder import read_json

LIMIT_S = 360


def measure() -> float:
    """Seconds from the clone to the end of ``make run``, with an empty package cache."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(tempfile.mkdtemp())
    keep = {
        key: value
        for key, value in os.environ.items()
        if key not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")
    }
    try:
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", str(root), "clone"], cwd=folder, check=True)
        environment = {**keep, "UV_CACHE_DIR": str(folder / "uv-cache"), "PIP_NO_CACHE_DIR": "1"}
        subprocess.run(["make", "run"], cwd=folder / "clone", check=True, env=environment)
        seconds = time.perf_counter() - began
        assert read_json(folder / "clone" / "runs" / "latest" / "result.json")["eval_reward_after"] > 0.5
        return seconds
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    figure = largest_at_most("git clone && make run, nothing cached", [measure()], LIMIT_S, "s")
    print(
        write(
            "fresh_clone", "From a clone to a trained model", "python -m benchmarks.fresh_clone", [figure]
        ).read_text()
    )
