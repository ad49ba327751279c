"""A number per row or per group, for many at a time and for one, in arrays that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Cells:
    """`array` serves many cells at a time, `at` one: reading a cell of numpy costs twice as much as one of `at`."""

    __slots__ = ("array", "at")

    def __init__(self, size: int, dtype: DTypeLike = np.uint8) -> None:
        self.array: NDArray[Any] = np.zeros(size, dtype=dtype)
        self.at = self.array.data

    def grow(self, size: int) -> None:
        """More cells, the new ones 0."""
        larger = np.zeros(size, dtype=self.array.dtype)
        larger[: len(self.array)] = self.array
        self.array, self.at = larger, larger.data
