"""Samplers that each break one rule, in a module that a controller's process can import."""

import random
from typing import Any

from transfer_queue.samplers import BaseSampler, SequentialSampler
from transfer_queue.samplers.built_in import whole_groups


class TakesWhatWasNotOffered(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return [row + 1 for row in ready_indices[:batch_size]]


class OffersUnreadyRows(SequentialSampler):
    def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
        taken = args[1]
        return [row for row in all_indices if not taken[row]]


class OffersTakenRows(SequentialSampler):
    def filter_ready_indices(
        self, all_indices: list[int], produced: Any, taken: Any, *args: Any, **kwargs: Any
    ) -> list[int]:
        return super().filter_ready_indices(all_indices, produced, taken & False, *args, **kwargs)


class OffersRowsThatWereNotPut(SequentialSampler):
    def filter_ready_indices(self, all_indices: list[int], produced: Any, *args: Any, **kwargs: Any) -> list[int]:
        return [*super().filter_ready_indices(all_indices, produced, *args, **kwargs), len(produced)]


class OffersARowTwice(SequentialSampler):
    def filter_ready_indices(self, *args: Any, **kwargs: Any) -> list[int]:
        return super().filter_ready_indices(*args, **kwargs) * 2

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return super().sample(sorted(set(ready_indices)), batch_size, **kwargs)


class TakesARowTwice(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return (ready_indices[:1] * 2)[:batch_size]


class TakesTooMany(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return ready_indices


class CutsGroups(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return ready_indices[:batch_size]


class EmptiesAllIndices(SequentialSampler):
    def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
        ready = super().filter_ready_indices(all_indices, *args, **kwargs)
        all_indices.clear()
        return ready


class MarksRowsAsTaken(SequentialSampler):
    def filter_ready_indices(
        self, all_indices: list[int], produced: Any, taken: Any, *args: Any, **kwargs: Any
    ) -> list[int]:
        ready = super().filter_ready_indices(all_indices, produced, taken, *args, **kwargs)
        taken[all_indices] = True
        return ready


class SortsReadyIndices(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        ready_indices.sort(reverse=True)
        return super().sample(ready_indices[::-1], batch_size, **kwargs)


class WritesToValues(SequentialSampler):
    value_fields = ("length",)

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        kwargs["values"]["length"][:] = 0
        return super().sample(ready_indices, batch_size, **kwargs)


class DrawsLots(SequentialSampler):
    def filter_ready_indices(self, *args: Any, **kwargs: Any) -> list[int]:
        ready = super().filter_ready_indices(*args, **kwargs)
        return random.sample(ready, len(ready))


class SaysThatItDrawsLots(DrawsLots):
    deterministic = False


class FailsWithoutRows(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        assert min(ready_indices) >= 0
        return super().sample(ready_indices, batch_size, **kwargs)


class FindsRowsInNothing(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return super().sample(ready_indices, batch_size, **kwargs) if ready_indices else [0]


class ReturnsAMask(SequentialSampler):
    def filter_ready_indices(self, *args: Any, **kwargs: Any) -> list[int]:
        return args[2].tolist()  # type: ignore[no-any-return]


class RejectsTakenRows(SequentialSampler):
    def reject(self, all_indices: list[int], *args: Any, **kwargs: Any) -> dict[str, list[int]]:
        return {"old": [row for row in all_indices if row % 2]}


class KeepsASettingElsewhere(SequentialSampler):
    last_first = False

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        rows = super().sample(ready_indices, batch_size, **kwargs)
        return rows[::-1] if self.last_first else rows


class HasArgumentsThatCannotTravel(SequentialSampler):
    def __init__(self, key: object) -> None:
        self.key = key


class StarvesTheLastGroup(SequentialSampler):
    def filter_ready_indices(self, *args: Any, **kwargs: Any) -> list[int]:
        last = len(args[1]) // kwargs["num_n_samples"] - 1
        return [row for row in super().filter_ready_indices(*args, **kwargs) if row // kwargs["num_n_samples"] < last]


class FailsOnLargePartitions(SequentialSampler):
    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        if max(ready_indices, default=0) > 20:
            raise MemoryError("too large for me")
        return super().sample(ready_indices, batch_size, **kwargs)


class Skeleton(BaseSampler):
    """What a sampler looks like before its filter is written: nothing is ever ready."""

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        return ready_indices[:batch_size]

    def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
        return []


class Filled(Skeleton):
    """The same with a filter, and with the groups that its callers may ask for."""

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        if kwargs["get_n_samples"]:
            ready_indices = whole_groups(ready_indices, kwargs["num_n_samples"])
        return super().sample(ready_indices, batch_size, **kwargs)

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        if any(field not in field_mapping for field in data_fields):
            return []
        columns = [field_mapping[field] for field in data_fields]
        ready_mask = production_status[:, columns].all(1) & ~consumption_status
        return [row for row in all_indices if ready_mask[row]]
