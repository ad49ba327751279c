"""Clocks and percentiles; all times in milliseconds unless a name says otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds that the call took, and what it gave."""
    began = time.perf_counter()
    result = call()
    return 1000 * (time.perf_counter() - began), result


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` percent of the values do not exceed."""
    return float(np.percentile(values, share))


def wait_for(start_at: float) -> None:
    """Sleep until this moment of CLOCK_MONOTONIC, which all processes of the machine share."""
    time.sleep(max(0.0, start_at - time.monotonic()))
