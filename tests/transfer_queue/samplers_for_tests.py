"""Custom samplers that a controller's process can import."""

import time
from typing import Any

import torch

from transfer_queue import BaseSampler, GRPOSampler


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
        }
        if self.fault == "raises":
            raise ZeroDivisionError("no such thing")
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


def make_grpo() -> GRPOSampler:
    return GRPOSampler(2)


def make_nothing() -> int:
    return 3
