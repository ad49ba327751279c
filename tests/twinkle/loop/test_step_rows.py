"""The rows of a step, whoever fetched them."""

import math

import pytest

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version
from twinkle.loop.step_rows import PreparedRow, PreparedSlice, StepRows
from twinkle.loop.weight_sync import PublishedVersions
from twinkle.rl.config import AlgoConfig

V0, DIGEST = Version(0, 0), "d" * 32


def row(sample_id: int, *, reward: float = 0.0, version: Version = V0, gap: float = 0.0) -> PreparedRow:
    return PreparedRow(sample_id, reward, 4 + sample_id, version, DIGEST, gap)


def published() -> PublishedVersions:
    known = PublishedVersions()
    known.remember(V0, DIGEST)
    return known


ROWS = [row(index, reward=float(index % 3)) for index in range(8)]


@pytest.mark.parametrize("control", ["none", "shuffled", "flipped"])
def test_slices_and_order_change_neither_figures_nor_advantages(control: str) -> None:
    algo = AlgoConfig(control=control)
    whole = StepRows([PreparedSlice(ROWS, [])])
    cut = StepRows([PreparedSlice(ROWS[:3:-1], [{"shown": 1}]), PreparedSlice(ROWS[3::-1], [])])

    assert cut.figures(1) == whole.figures(1)
    assert cut.advantages(algo, 4, seed=1, step=1) == whole.advantages(algo, 4, seed=1, step=1)
    assert cut.samples == [{"shown": 1}]


def test_figures_are_those_of_all_rows() -> None:
    figures = StepRows([PreparedSlice([row(0, reward=1.0), row(1, reward=0.0, gap=1e-6)], [])]).figures(3)

    assert figures == {
        "reward_mean": 0.5,
        "reward_std": 0.5,
        "response_length_mean": 4.5,
        "staleness_max": 2,
        "logp_diff_max": 1e-6,
    }


def test_a_row_of_weights_that_were_never_published_is_refused() -> None:
    rows = StepRows([PreparedSlice([row(0), row(1, version=Version(1, 0), gap=1.0)], [])])

    with pytest.raises(WeightSyncError, match=r"Sample 1 was made by version 1\.0, which this trainer never published"):
        rows.check(published(), 1e-4, V0)


def test_a_row_of_an_older_version_is_refused() -> None:
    known, newest = published(), Version(0, 1)
    known.remember(newest, DIGEST)
    rows = StepRows([PreparedSlice([row(0, version=newest), row(1)], [])])

    with pytest.raises(WeightSyncError, match=r"Sample 1 was made by version 0\.0, but .* samples of 0\.1 alone"):
        rows.check(known, 1e-4, newest)


@pytest.mark.parametrize("gap", [2e-4, math.nan])
def test_a_row_with_other_log_probs_is_named(gap: float) -> None:
    rows = StepRows([PreparedSlice([row(0, gap=1e-5), row(1, gap=gap), row(2)], [])])

    with pytest.raises(WeightSyncError, match=r"Sample 1 of version 0\.0: the sampler's log-probs differ"):
        rows.check(published(), 1e-4, V0)
