"""Closed forms of the loss, its clipping, the divergence and the aggregations."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from twinkle.rl.config import AGGREGATIONS
from twinkle.rl.loss import clipped_loss, k3_divergence, token_weights

LOW, HIGH = 0.2, 0.3


def loss_and_gradient(ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Loss of one token, its derivative by the log-prob, and whether it counts as clipped."""
    logp = torch.tensor([[math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    advantages_B = torch.tensor([advantage], dtype=torch.float64)
    loss, clipped = clipped_loss(logp, old, advantages_B, clip_low=LOW, clip_high=HIGH)
    loss.sum().backward()
    assert logp.grad is not None
    return loss.item(), logp.grad.item(), bool(clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.25, 2.0, -2.5, -2.5, False),
        (1.5, 2.0, -2.6, 0.0, True),  # above 1 + HIGH with a good advantage: nothing more to gain
        (0.5, 2.0, -1.0, -1.0, False),  # below, but the advantage pulls it back up
        (0.5, -2.0, 1.6, 0.0, True),  # below 1 - LOW with a bad advantage
        (0.75, -2.0, 1.6, 0.0, True),  # between 1 - HIGH and 1 - LOW: each side has its own bound
        (0.75, 2.0, -1.5, -1.5, False),
        (1.5, -2.0, 3.0, 3.0, False),  # above, and the advantage pushes it down
        (0.9, -2.0, 1.8, 1.8, False),
        (5.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_hand_numbers(ratio: float, advantage: float, loss: float, gradient: float, clipped: bool) -> None:
    measured = loss_and_gradient(ratio, advantage)

    assert measured == (pytest.approx(loss), pytest.approx(gradient), clipped)
    if clipped:
        assert measured[1] == 0.0


@given(st.floats(0.05, 5.0), st.floats(-3.0, 3.0))
def test_the_loss_is_the_pessimistic_one_of_the_formula(ratio: float, advantage: float) -> None:
    expected = -min(ratio * advantage, min(max(ratio, 1 - LOW), 1 + HIGH) * advantage)

    assert loss_and_gradient(ratio, advantage)[0] == pytest.approx(expected, abs=1e-9)


def test_k3_hand_numbers_and_gradient() -> None:
    logp = torch.tensor([[0.0, -1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([[0.0, -2.0, -1.0]], dtype=torch.float64)

    k3 = k3_divergence(logp, ref)
    k3.sum().backward()

    assert_close(k3, torch.tensor([[0.0, math.exp(-1), math.e - 2]], dtype=torch.float64))
    assert_close(logp.grad, torch.tensor([[0.0, 1 - math.exp(-1), 1 - math.e]], dtype=torch.float64))


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k3_is_never_negative(logp: float, ref: float) -> None:
    assert float(k3_divergence(torch.tensor(logp), torch.tensor(ref))) >= 0


def test_k3_estimates_the_kl_divergence_without_bias() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])

    expectation = (p * k3_divergence(p.log(), q.log())).sum()

    assert_close(expectation, (p * (p / q).log()).sum())


MASK = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
LOSS = torch.tensor([[9.0, 1.0, 2.0, 3.0], [9.0, 5.0, 9.0, 9.0], [9.0, 4.0, 4.0, 9.0]])


@pytest.mark.parametrize(
    ("aggregation", "expected", "without_the_last_row"),
    [
        ("sequence_mean", (2 + 5 + 4) / 3, (2 + 5) / 2),
        ("token_mean", (6 + 5 + 8) / 6, (6 + 5) / 4),
        ("constant_length", (6 + 5 + 8) / (10 * 3), (6 + 5) / (10 * 2)),
    ],
)
def test_aggregations_by_hand(aggregation: str, expected: float, without_the_last_row: float) -> None:
    def aggregate(weights: list[float]) -> float:
        weights_BT = token_weights(aggregation, MASK, torch.tensor(weights), constant_length=10)
        return float((weights_BT * LOSS).sum())

    assert aggregate([1, 1, 1]) == pytest.approx(expected)
    assert aggregate([1, 1, 0]) == pytest.approx(without_the_last_row)
    assert aggregate([0, 0, 0]) == 0.0


def test_a_row_without_response_adds_nothing_but_is_a_row() -> None:
    weights = token_weights("sequence_mean", torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.ones(2))

    assert weights.tolist() == [[0.25, 0.25], [0.0, 0.0]]


def test_settings_that_cannot_work_are_errors() -> None:
    with pytest.raises(ValueError, match="constant_length=0"):
        token_weights("constant_length", MASK, torch.ones(3))
    with pytest.raises(ValueError, match="'mean' is unknown"):
        token_weights("mean", MASK, torch.ones(3))


@given(st.data(), st.sampled_from(AGGREGATIONS))
def test_weights_are_blind_to_cuts_padding_and_order(data: st.DataObject, aggregation: str) -> None:
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    rows = len(lengths)
    weights = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=rows, max_size=rows)))
    order = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    extra = data.draw(st.integers(0, 3))
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).float()
    loss = torch.linspace(-1, 1, mask.numel()).reshape(mask.shape)
    wide_mask, wide_loss = (torch.nn.functional.pad(part, (0, extra)) for part in (mask, loss))

    whole = (token_weights(aggregation, mask, weights, constant_length=5) * loss).sum()
    other = token_weights(aggregation, wide_mask[order], weights[order], constant_length=5)
    cut = data.draw(st.integers(0, len(lengths)))
    pieces = [(other[part] * wide_loss[order][part]).sum() for part in (slice(0, cut), slice(cut, None))]

    assert_close(pieces[0] + pieces[1], whole, atol=1e-6, rtol=1e-6)


VOCABULARY, LENGTH = 2, 3


def expected_return(logits_TV: Tensor, reward: dict[tuple[int, ...], float]) -> Tensor:
    """Sum over every response of its probability times its reward, nothing sampled."""
    logp_TV = logits_TV.log_softmax(-1)
    total = torch.zeros((), dtype=logits_TV.dtype)
    for response in product(range(VOCABULARY), repeat=LENGTH):
        total = total + torch.exp(logp_TV[range(LENGTH), response].sum()) * reward[response]
    return total


def test_policy_gradient_is_that_of_exact_enumeration() -> None:
    """On-policy, advantages = rewards, each response as often as it is likely: the loss is the negated expected
    return's."""
    generator = torch.Generator().manual_seed(3)
    responses = list(product(range(VOCABULARY), repeat=LENGTH))
    reward = {response: float(torch.rand((), generator=generator)) for response in responses}
    logits = torch.randn(LENGTH, VOCABULARY, generator=generator, dtype=torch.float64)

    exact = logits.clone().requires_grad_()
    expected_return(exact, reward).backward()
    trained = logits.clone().requires_grad_()
    logp_TV = trained.log_softmax(-1)
    logp_BT = torch.stack([logp_TV[range(LENGTH), response] for response in responses])
    probability_B = logp_BT.detach().sum(1).exp()
    rewards_B = torch.tensor([reward[response] for response in responses], dtype=torch.float64)
    loss_BT, _ = clipped_loss(logp_BT, logp_BT.detach(), rewards_B, clip_low=LOW, clip_high=HIGH)
    weights_BT = token_weights("constant_length", torch.ones(len(responses), LENGTH), probability_B, constant_length=1)
    (weights_BT.double() * loss_BT).sum().backward()

    assert exact.grad is not None
    assert_close(trained.grad, -exact.grad, atol=1e-6, rtol=1e-6)
