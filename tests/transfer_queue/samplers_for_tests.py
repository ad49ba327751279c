"""Custom samplers that a controller's process can import."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from transfer_queue import BaseSampler, GRPOSampler, Withheld


class Documented(BaseSampler):
    """Checks the arguments that are documented, then takes the ready rows from behind."""

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return ready_indices[-batch_size:][::-1]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        assert isinstance(production_status, torch.Tensor)
        assert isinstance(consumption_status, torch.Tensor)
        assert production_status.shape == (len(consumption_status), len(field_mapping))
        if any(field not in field_mapping for field in data_fields):
            return []
        columns = [field_mapping[field] for field in data_fields]
        ready_mask = production_status[:, columns].all(dim=1) & ~consumption_status
        return [i for i in all_indices if ready_mask[i]]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class Faulty(Documented):
    """Does the one wrong thing that its argument names."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        wrong = {
            "twice": [ready_indices[0]] * batch_size,
            "not offered": list(range(10_000, 10_000 + batch_size)),
            "too many": ready_indices[: batch_size + 1],
            "partial": ready_indices[1 : batch_size + 1],
            "nothing": [],
            "mask": [True] * batch_size,
            "floats": [0.5, 1.5][:batch_size],
        }
        if self.fault == "raises":
            raise ZeroDivisionError("no such thing")
        if self.fault == "exits":
            sys.exit(3)
        if self.fault == "unprintable":
            raise Unprintable
        if self.fault == "hangs":
            time.sleep(3)
        return wrong.get(self.fault, ready_indices[:batch_size])

    def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
        return all_indices


class Biased(Documented):
    """Takes what its caller's parameters say; keeps count of its calls."""

    calls = 0

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        self.calls += 1
        return [i for i in ready_indices if i % 2 == kwargs["parity"]][:batch_size]


class Unfit(Documented):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("no disk")


class Slow(Documented):
    """Is made when a file appears."""

    def __init__(self, path: str) -> None:
        for _ in range(1000):
            if Path(path).exists():
                return
            time.sleep(0.01)
        raise OSError(f"nobody made {path}")


def make_grpo() -> GRPOSampler:
    return GRPOSampler(2)


def make_nothing() -> int:
    return 3


class Largest(Documented):
    """The rows of the largest values of a field first."""

    def __init__(self, field: str) -> None:
        self.value_fields = (field,)

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        values = kwargs["values"][self.value_fields[0]]
        return sorted((i for i in ready_indices if values[i] > 0), key=lambda i: -values[i])[:batch_size]


class Choosy(Documented):
    """Rejects the rows that its caller's parameters name, and offers none of those that they hide."""

    def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
        return [i for i in super().filter_ready_indices(all_indices, *args, **kwargs) if i not in kwargs["hide"]]

    def reject(self, all_indices: list[int], *args: Any, **kwargs: Any) -> dict[str, list[int]]:
        rejected: dict[str, list[int]] = kwargs["reject"]
        return rejected

    def explain_withheld(self, withheld: list[int], **kwargs: Any) -> list[Withheld]:
        return [Withheld("odd", "odd", [i for i in withheld if i % 2])]
