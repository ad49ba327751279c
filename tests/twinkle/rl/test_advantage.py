"""Closed forms and invariants of the advantages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from twinkle.errors import RewardError
from twinkle.rl.advantage import advantages, controlled_advantages, group_advantages
from twinkle.rl.config import ADVANTAGES, AlgoConfig

REWARDS = torch.tensor([1.0, 0.0, 0.0, 3.0])
GROUP = torch.zeros(4, dtype=torch.int64)
STD = math.sqrt(2.0)  # of 1, 0, 0, 3: mean 1, squares 0 + 1 + 1 + 4, divisor 3


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("grpo", [0.0, -1 / (STD + 0.5), -1 / (STD + 0.5), 2 / (STD + 0.5)]),
        ("dr_grpo", [0.0, -1.0, -1.0, 2.0]),
        ("rloo", [1 - 3 / 3, 0 - 4 / 3, 0 - 4 / 3, 3 - 1 / 3]),
    ],
)
def test_hand_numbers(kind: str, expected: list[float]) -> None:
    assert_close(group_advantages(kind, REWARDS, GROUP, std_eps=0.5), torch.tensor(expected))


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_groups_do_not_see_each_other_in_any_order(kind: str) -> None:
    rewards, groups = torch.tensor([1.0, 5.0, 0.0, 2.0, 9.0]), torch.tensor([7, 3, 7, 3, 3])

    both = group_advantages(kind, rewards, groups)

    for group in (3, 7):
        alone = group_advantages(kind, rewards[groups == group], groups[groups == group])
        assert_close(both[groups == group], alone)


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -1e9])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_group_without_variance_gives_exactly_zero(kind: str, reward: float, size: int) -> None:
    for dtype in (torch.float32, torch.float64):
        rewards = torch.full((size,), reward, dtype=dtype)

        zeros = group_advantages(kind, rewards, torch.zeros(size, dtype=torch.int64), std_eps=1e-12)

        assert zeros.tolist() == [0.0] * size


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("reward_of_padding", [0.0, 1e6, float("nan"), float("inf")])
def test_rows_of_weight_zero_get_zero_and_enter_no_baseline(kind: str, reward_of_padding: float) -> None:
    rewards = torch.tensor([1.0, reward_of_padding, 0.0, 4.0])
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0])

    padded = group_advantages(kind, rewards, GROUP, weights)

    assert padded[1] == 0
    assert_close(padded[[0, 2, 3]], group_advantages(kind, rewards[[0, 2, 3]], GROUP[:3]))


def test_a_group_of_padding_alone_is_zero() -> None:
    assert group_advantages("grpo", REWARDS, GROUP, torch.zeros(4)).tolist() == [0.0] * 4


def test_a_reward_that_is_not_finite_is_an_error_naming_its_row() -> None:
    with pytest.raises(RewardError, match=r"row 2 is nan"):
        group_advantages("grpo", torch.tensor([0.0, 1.0, math.nan]), GROUP[:3])


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'ppo' is unknown"):
        group_advantages("ppo", REWARDS, GROUP)


GROUPS = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), min_size=1, max_size=5)


@given(GROUPS, st.sampled_from(ADVANTAGES), st.randoms())
def test_sum_zero_per_group_finite_and_blind_to_order(groups: list[list[float]], kind: str, random: object) -> None:
    rewards = torch.tensor([reward for group in groups for reward in group])
    ids = torch.tensor([index for index, group in enumerate(groups) for _ in group])
    order = torch.tensor(sorted(range(len(ids)), key=lambda _: random.random()))  # type: ignore[attr-defined]

    straight = group_advantages(kind, rewards, ids)
    shuffled = group_advantages(kind, rewards[order], ids[order])

    assert torch.isfinite(straight).all()
    sums = torch.zeros(len(groups)).index_add_(0, ids, straight)
    assert_close(sums, torch.zeros(len(groups)), atol=2e-3, rtol=0)
    assert_close(shuffled, straight[order], atol=1e-4, rtol=1e-4)


def test_rloo_is_the_reward_less_the_mean_of_the_others() -> None:
    rewards = torch.rand(6, generator=torch.Generator().manual_seed(0))
    others = torch.stack([torch.cat([rewards[:i], rewards[i + 1 :]]).mean() for i in range(6)])

    assert_close(group_advantages("rloo", rewards, torch.zeros(6, dtype=torch.int64)), rewards - others)


def test_shuffling_is_a_function_of_seed_and_step_and_keeps_padding_in_place() -> None:
    plain = torch.arange(1.0, 17.0)
    weights = torch.ones(16)
    weights[3] = 0
    before = torch.get_rng_state()

    first = controlled_advantages("shuffled", plain, weights, seed=1, step=5)

    assert torch.equal(first, controlled_advantages("shuffled", plain, weights, seed=1, step=5))
    assert not torch.equal(first, controlled_advantages("shuffled", plain, weights, seed=1, step=6))
    assert not torch.equal(first, controlled_advantages("shuffled", plain, weights, seed=2, step=5))
    assert not torch.equal(first, plain)
    assert first[3] == plain[3]
    assert sorted(first.tolist()) == plain.tolist()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_configuration_chooses_advantage_and_control() -> None:
    algo = AlgoConfig(advantage="dr_grpo", control="flipped")

    assert advantages(algo, REWARDS, GROUP, seed=0, step=1).tolist() == [0.0, 1.0, 1.0, -2.0]
    assert advantages(AlgoConfig(std_eps=1.0), REWARDS, GROUP, seed=0, step=1)[3] == pytest.approx(2 / (STD + 1))


def test_an_unknown_control_is_an_error() -> None:
    with pytest.raises(ValueError, match="'noise' is unknown"):
        controlled_advantages("noise", REWARDS, seed=0, step=0)
