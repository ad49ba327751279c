"""What is said at the end of a run."""

import io

import pytest
from rich.console import Console

from twinkle.loop.console import warn_without_signal


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0.0, 0.0)] * 3, "In 3 of 3 steps"),
        ([(0.0, 0.2), (0.0, 0.1), (0.3, 0.1)], "In 2 of 3 steps"),  # the gradient is that of the KL term
        ([(0.3, 0.1), (0.0, 0.0)], ""),
    ],
)
def test_a_run_without_different_rewards_is_told_where_to_read_on(rows: list[tuple[float, float]], said: str) -> None:
    file = io.StringIO()
    warn_without_signal(Console(file=file), [{"reward_std": std, "grad_norm": norm} for std, norm in rows])

    assert file.getvalue().strip().startswith(said)
    assert bool(said) == ("Your own model, data and reward" in file.getvalue())
