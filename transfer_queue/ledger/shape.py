"""The sizes of a queue, checked once, in the caller."""

from __future__ import annotations

from dataclasses import dataclass

from transfer_queue.errors import ConfigurationError

ROW_BITS = 32
"""A global index is `serial << ROW_BITS | row`: the number of its partition in the queue's life, and its row there."""
ROW_MASK = (1 << ROW_BITS) - 1


def split_index(index: int) -> tuple[int, int]:
    """Serial and row of a global index."""
    return index >> ROW_BITS, index & ROW_MASK


def first_index(serial: int) -> int:
    """The global index of row 0 of that partition."""
    return serial << ROW_BITS


@dataclass(frozen=True, slots=True)
class QueueShape:
    """Sizes that never change while a controller lives.

    `global_batch_size` counts prompts of one step, `num_n_samples` rows per prompt, `num_global_batch` partitions that
    may be alive at once. `tasks` are those that must all have consumed a partition before it clears itself.
    """

    global_batch_size: int
    num_global_batch: int = 1
    num_n_samples: int = 1
    tasks: tuple[str, ...] = ()

    @property
    def capacity(self) -> int:
        """Rows of one partition."""
        return self.global_batch_size * self.num_n_samples

    def validate(self) -> QueueShape:
        """Itself, or a `ConfigurationError` that names the argument and its value."""
        for name in ("global_batch_size", "num_global_batch", "num_n_samples"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
            if value < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {value}")
        names: tuple[object, ...] = self.tasks
        for task in names:
            if not isinstance(task, str) or not task:
                raise ConfigurationError(f"tasks must be names such as 'train', not {task!r}")
        if len(set(self.tasks)) != len(self.tasks):
            raise ConfigurationError(f"tasks names one task twice: {list(self.tasks)}")
        return self
