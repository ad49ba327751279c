"""Resident memory and how long a start takes."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil

SETTLE_S = 1.0


def resident_mb(pids: list[int]) -> float:
    """Resident memory of these processes together, in MB; what they share is counted for each."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6


def proportional_mb(pids: list[int]) -> float:
    """The same, with what processes share split among them."""
    return float(sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6)


def start_alone(system: Any) -> dict[str, float]:
    """Start our queue without Ray: seconds until it answers, and the MB of its empty controller."""
    began = time.perf_counter()
    system.start(rows=64)
    seconds = time.perf_counter() - began
    time.sleep(SETTLE_S)
    pids = [system.controller.pid]
    result = {"start_s": seconds, "memory_mb": resident_mb(pids), "shared_mb": proportional_mb(pids)}
    system.stop()
    return result


def start_peer(system: Any) -> dict[str, float]:
    """Start the peer: seconds beside a running Ray, those of Ray, and the MB of its controller and storage units."""
    system.start()
    time.sleep(SETTLE_S)
    pids = list(actors())
    result = {**system.started, "memory_mb": resident_mb(pids), "shared_mb": proportional_mb(pids)}
    system.stop()
    return result


def actors() -> dict[int, str]:
    """Name by pid of the Ray actors that descend from this process; Ray's own agents are not among them."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray ends workers as it likes
            line = process.cmdline()
            name = line[0].split()[0].removeprefix("ray::") if line and line[0].startswith("ray::") else ""
            if name and not name.endswith(("IDLE", "Agent")):
                found[process.pid] = name
    return found
