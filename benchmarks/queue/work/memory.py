"""Resident memory and how long a start takes."""

from __future__ import annotations

import time
from typing import Any

import psutil

SETTLE_S = 1.0


def resident_mb(pids: list[int]) -> float:
    """Resident memory of these processes together, in MB."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6


def start_alone(system: Any) -> dict[str, float]:
    """Start our queue without Ray: seconds until it answers, and the MB of its empty controller."""
    began = time.perf_counter()
    system.start(rows=64)
    seconds = time.perf_counter() - began
    time.sleep(SETTLE_S)
    memory = resident_mb([system.controller.pid])
    system.stop()
    return {"start_s": seconds, "memory_mb": memory}


def start_peer(system: Any) -> dict[str, float]:
    """Start the peer: seconds beside a running Ray, those of Ray, and the MB of its controller and storage units."""
    system.start()
    time.sleep(SETTLE_S)
    memory = resident_mb(list(actors()))
    system.stop()
    return {"start_s": system.started["queue_s"], "ray_s": system.started["ray_s"], "memory_mb": memory}


def actors() -> dict[int, str]:
    """Name by pid of the Ray actors that descend from this process."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        line = process.cmdline()
        if line and line[0].startswith("ray::") and not line[0].startswith("ray::IDLE"):
            found[process.pid] = line[0].split()[0].removeprefix("ray::")
    return found
