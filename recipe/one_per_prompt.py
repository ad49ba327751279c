"""A custom sampler in a module of its own, so that the controller's process can import it too."""

from typing import Any

from transfer_queue import BaseSampler


class OnePerPrompt(BaseSampler):
    """One row of each prompt that has none taken yet: enough for a judge that looks at samples of the work."""

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        """The first ready row of each prompt; rows of one prompt lie side by side."""
        first: dict[int, int] = {}
        for row in ready_indices:
            first.setdefault(row // kwargs["num_n_samples"], row)
        return list(first.values())[:batch_size]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        """The rows that have every field, of prompts of which the task has taken nothing."""
        if any(field not in field_mapping for field in data_fields):
            return []
        columns, samples = [field_mapping[field] for field in data_fields], kwargs["num_n_samples"]
        judged = {row // samples for row in all_indices if consumption_status[row]}
        return [i for i in all_indices if production_status[i, columns].all() and i // samples not in judged]
