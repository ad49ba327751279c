"""Does reinforcement learning learn, and only because of the reward? The matrix of ``benchmarks.learning``."""

from pathlib import Path

import pytest

from benchmarks.learning import CASES, LARGEST_GAP, Case, run


@pytest.mark.learning
@pytest.mark.timeout(280)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_median_of_three_seeds(case: Case, tmp_path: Path) -> None:
    figure, gaps = run(case, tmp_path)

    assert figure.reached, figure
    assert max(gaps) <= LARGEST_GAP
