"""A clock that moves when told."""

from collections.abc import Callable

from transfer_queue.ledger import DPPlace, Ledger, QueueShape, Want


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger_of(
    prompts: int = 4, partitions: int = 2, samples: int = 2, tasks: tuple[str, ...] = ()
) -> tuple[Ledger, Clock]:
    clock = Clock()
    return Ledger(QueueShape(prompts, partitions, samples, tasks), clock), clock


def want(task: str = "train", batch: int = 2, **rest: object) -> Want:
    fields = rest.pop("fields", ("x",))
    assert isinstance(fields, tuple)
    return Want(task, fields, batch, **rest)  # type: ignore[arg-type]


def rank(r: int, size: int = 2, group: str = "g") -> DPPlace:
    return DPPlace(r, size, group)


__all__ = ["Callable", "Clock", "ledger_of", "rank", "want"]
