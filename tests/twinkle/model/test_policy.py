"""Log-probs, gradients and steps of a policy."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from tests.twinkle.model.conftest import PolicyMaker, on_policy, random_batch
from twinkle.errors import ConfigError, ModelNotFoundError, RunError
from twinkle.model.batch import TrainBatch
from twinkle.model.config import LoraSettings, ModelConfig, OptimConfig
from twinkle.model.policy import Policy
from twinkle.rl.config import AGGREGATIONS, AlgoConfig


def gradient(policy: Policy, batch: TrainBatch, algo: AlgoConfig) -> Tensor:
    """The gradient of one update on `batch`, read where AdamW keeps it: its first moment is (1 - beta1) times it."""
    policy.train_step(batch, algo, 1.0)
    moments = [state["exp_avg"] for state in policy.state_dict()["optimizer"]["state"].values()]
    return torch.cat([moment.flatten() for moment in moments]) / (1 - policy.optim.beta1)


def in_order(batch: TrainBatch, order: Tensor) -> TrainBatch:
    return TrainBatch(*(None if part is None else part[order] for part in vars(batch).values()))


def padded(batch: TrainBatch, left: int, right: int) -> TrainBatch:
    """The batch with columns of padding on both sides."""
    return TrainBatch(
        *(
            part if part is None or part.ndim == 1 else torch.nn.functional.pad(part, (left, right))
            for part in vars(batch).values()
        )
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_each_row_alone(folder: Path, make_policy: PolicyMaker, temperature: float) -> None:
    batch = random_batch()
    model = AutoModelForCausalLM.from_pretrained(folder)

    logp_BT = make_policy(folder=folder).token_logprobs(batch, temperature)

    for row in range(len(batch)):
        ids = batch.input_ids_BT[row][batch.attention_mask_BT[row] == 1]
        with torch.no_grad():
            logp_TV = (model(ids[None]).logits[0] / temperature).log_softmax(-1)
        expected = logp_TV[:-1].gather(1, ids[1:, None])[:, 0] * batch.response_mask_BT[row, 1 : len(ids)]
        assert_close(logp_BT[row, 1 : len(ids)], expected, atol=1e-5, rtol=0)
    assert logp_BT.dtype == torch.float32
    assert not logp_BT[batch.response_mask_BT == 0].any()


def test_padding_on_either_side_changes_no_log_prob(folder: Path, make_policy: PolicyMaker) -> None:
    batch, policy = random_batch(), make_policy(folder=folder)

    wide = policy.token_logprobs(padded(batch, 3, 2), 1.0)

    assert_close(wide[:, 3:-2], policy.token_logprobs(batch, 1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("lora", [True, False])
def test_the_gradient_is_blind_to_micro_batches_padding_and_order(
    make_policy: PolicyMaker, aggregation: str, lora: bool
) -> None:
    algo = AlgoConfig(aggregation=aggregation, constant_length=6, kl_coef=0.1)
    batch = on_policy(make_policy(lora=lora), random_batch())
    batch = replace(
        batch,
        old_logprobs_BT=batch.old_logprobs_BT + 0.2 * torch.sin(1.0 * batch.input_ids_BT) * batch.response_mask_BT,
        weights_B=torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 1]),
    )
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    off = {"lora": lora, "max_grad_norm": 0.0}

    whole = gradient(make_policy(**off), batch, algo)

    assert whole.abs().max() > 1e-3
    variants = [
        gradient(make_policy(**off, microbatch_rows=4), batch, algo),
        gradient(make_policy(**off, microbatch_rows=2), batch, algo),
        gradient(make_policy(**off, tokens_per_microbatch=15), batch, algo),
        gradient(make_policy(**off), in_order(batch, order), algo),
        gradient(make_policy(**off, microbatch_rows=3), in_order(batch, order), algo),
        gradient(make_policy(**off), padded(batch, 4, 3), algo),
        gradient(make_policy(**off), in_order(batch, batch.weights_B.nonzero()[:, 0]), algo),
    ]
    for variant in variants:
        assert_close(variant, whole, atol=1e-6, rtol=0)


def test_the_gradient_is_that_of_the_formula(make_policy: PolicyMaker, tiny_opt: Path) -> None:
    """On-policy with the sequence mean it is -mean_b A_b mean_t grad logp_bt; done here with plain transformers."""
    policy = make_policy(lora=False, max_grad_norm=0.0)
    batch = on_policy(policy, random_batch())
    model = AutoModelForCausalLM.from_pretrained(tiny_opt)
    logp_BTV = model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits.log_softmax(-1)
    logp_BT = logp_BTV[:, :-1].gather(2, batch.input_ids_BT[:, 1:, None])[..., 0] * batch.response_mask_BT[:, 1:]
    mean_B = logp_BT.sum(1) / batch.response_mask_BT.sum(1)
    (-(batch.advantages_B * mean_B).mean()).backward()

    expected = torch.cat([p.grad.flatten() for p in model.parameters()])

    assert_close(gradient(policy, batch, AlgoConfig()), expected, atol=1e-6, rtol=0)


def test_rows_of_weight_zero_do_not_count(make_policy: PolicyMaker) -> None:
    batch = random_batch()
    weights_B = torch.tensor([1.0] * 6 + [0.0] * 2)
    with_rubbish = replace(
        batch, weights_B=weights_B, advantages_B=batch.advantages_B * (weights_B + 1e3 * (1 - weights_B))
    )

    padded_stats = make_policy().train_step(with_rubbish, AlgoConfig(), 1.0)

    stats = make_policy().train_step(batch.rows(0, 6), AlgoConfig(), 1.0)
    for name, value in vars(stats).items():
        assert getattr(padded_stats, name) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("lora", [True, False])
def test_a_step_makes_good_responses_likelier_and_bad_ones_less(make_policy: PolicyMaker, lora: bool) -> None:
    policy = make_policy(lora=lora, lr=1e-3)
    batch = on_policy(policy, replace(random_batch(), advantages_B=torch.tensor([1.0, -1.0] * 4)))

    for _ in range(5):
        stats = policy.train_step(batch, AlgoConfig(), 1.0)

    change_B = ((policy.token_logprobs(batch, 1.0) - batch.old_logprobs_BT) * batch.response_mask_BT).sum(1)
    assert (change_B * batch.advantages_B > 0).float().mean() >= 0.75
    assert stats.loss < 0
    assert stats.tokens == int(batch.response_mask_BT.sum())


def test_on_policy_figures(make_policy: PolicyMaker) -> None:
    policy = make_policy()
    batch = on_policy(policy, random_batch())

    stats = policy.train_step(batch, AlgoConfig(kl_coef=0.1), 1.0)

    assert stats.loss == pytest.approx(-float(batch.advantages_B.mean()), abs=1e-6)
    assert (stats.clip_fraction, stats.kl, stats.kl_old) == pytest.approx((0, 0, 0), abs=1e-9)
    entropy = -float(batch.old_logprobs_BT.sum() / batch.response_mask_BT.sum())
    assert stats.entropy == pytest.approx(entropy, abs=1e-5)
    assert stats.grad_norm > 0


def test_the_configured_aggregation_is_the_one_that_is_used(make_policy: PolicyMaker) -> None:
    """On-policy the ratio is 1, so the loss is the aggregated negative advantage."""
    batch = on_policy(make_policy(), random_batch())
    length_B = batch.response_mask_BT.sum(1)
    total = -float((batch.advantages_B * length_B).sum())
    expected = {
        "sequence_mean": -float(batch.advantages_B.mean()),
        "token_mean": total / float(length_B.sum()),
        "constant_length": total / (8 * 20),
    }

    for aggregation, loss in expected.items():
        algo = AlgoConfig(aggregation=aggregation, constant_length=20)
        assert make_policy().train_step(batch, algo, 1.0).loss == pytest.approx(loss, abs=1e-6)


def test_several_updates_move_away_from_the_old_log_probs_until_clipped(make_policy: PolicyMaker) -> None:
    policy = make_policy(lora=False, lr=1e-2)
    batch = on_policy(policy, random_batch())

    stats = policy.train_step(batch, AlgoConfig(updates_per_step=5), 1.0)

    assert stats.clip_fraction > 0.05
    assert stats.kl_old > 0
    assert len({int(s["step"]) for s in policy.state_dict()["optimizer"]["state"].values()} ^ {5}) == 0


@pytest.mark.parametrize("lora", [True, False])
def test_the_reference_stays_what_the_folder_holds(make_policy: PolicyMaker, lora: bool) -> None:
    policy = make_policy(lora=lora)
    batch = random_batch()
    before = policy.token_logprobs(batch, 1.0)

    for _ in range(3):
        policy.train_step(batch, AlgoConfig(), 1.0)

    assert_close(policy.reference_logprobs(batch, 1.0), before, atol=1e-6, rtol=0)
    assert (policy.token_logprobs(batch, 1.0) - before).abs().max() > 1e-3
    assert policy.train_step(batch, AlgoConfig(kl_coef=0.1), 1.0).kl > 0


def test_a_strong_divergence_term_holds_the_policy_back(make_policy: PolicyMaker) -> None:
    def drift(kl_coef: float) -> float:
        policy = make_policy(lora=False)
        batch = on_policy(policy, random_batch())
        for _ in range(10):
            policy.train_step(batch, AlgoConfig(kl_coef=kl_coef), 1.0)
        return float((policy.token_logprobs(batch, 1.0) - batch.old_logprobs_BT).abs().mean())

    assert drift(10.0) < 0.5 * drift(0.0)


def test_the_gradient_is_clipped_to_its_bound(make_policy: PolicyMaker) -> None:
    batch = random_batch()

    free = gradient(make_policy(max_grad_norm=0.0), batch, AlgoConfig())
    bound = gradient(make_policy(max_grad_norm=1e-2), batch, AlgoConfig())

    assert float(bound.norm()) == pytest.approx(1e-2, rel=1e-3)
    assert_close(bound / bound.norm(), free / free.norm(), atol=1e-4, rtol=0)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm(make_policy: PolicyMaker) -> None:
    policy = make_policy()
    before = policy.state_dict()["parameters"]

    with pytest.raises(RunError, match="norm is nan"):
        policy.train_step(replace(random_batch(), advantages_B=torch.full((8,), torch.nan)), AlgoConfig(), 1.0)

    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict()["parameters"].items())


def test_no_random_numbers_are_drawn_and_the_seed_fixes_the_adapter(make_policy: PolicyMaker) -> None:
    torch.manual_seed(987)
    rng = torch.get_rng_state()

    first, same, other = (make_policy(seed=seed).export_weights().tensors for seed in (1, 1, 2))
    make_policy().train_step(random_batch(), AlgoConfig(), 1.0)

    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_parameters_are_counted(make_policy: PolicyMaker) -> None:
    full, lora = make_policy(lora=False), make_policy()

    assert full.num_trainable == full.num_parameters
    assert lora.num_parameters - lora.num_trainable == full.num_parameters
    assert lora.num_trainable == 2 * (4 * 8 * (64 + 64) + 2 * 8 * (64 + 256))


def test_chosen_layers_alone_get_an_adapter(tiny_opt: Path) -> None:
    config = ModelConfig(lora=LoraSettings(target_modules="q_proj, v_proj"))

    names = Policy(tiny_opt, config, OptimConfig()).export_weights().tensors

    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}


def test_layers_that_are_not_there_are_refused_with_those_that_are(tiny_opt: Path) -> None:
    config = ModelConfig(lora=LoraSettings(target_modules="query"))

    with pytest.raises(ConfigError, match=r"'query' does not fit .* fc1, fc2, k_proj"):
        Policy(tiny_opt, config, OptimConfig())


def test_a_folder_without_a_model_and_a_device_that_is_not_there(tmp_path: Path, tiny_opt: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        Policy(tmp_path / "none", ModelConfig(), OptimConfig())
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        Policy(tmp_path, ModelConfig(), OptimConfig())
    (tmp_path / "config.json").write_bytes((tiny_opt / "config.json").read_bytes())
    with pytest.raises(ModelNotFoundError, match="holds no model that can be loaded"):
        Policy(tmp_path, ModelConfig(), OptimConfig())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelNotFoundError, match="holds no model that can be loaded"):
        Policy(tmp_path, ModelConfig(), OptimConfig())
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"model.device={device}"):
        Policy(tiny_opt, ModelConfig(device=device), OptimConfig())


@pytest.mark.parametrize("lora", [True, False])
def test_bfloat16_computes_below_float32_and_trains_float32(tiny_opt: Path, lora: bool) -> None:
    batch = random_batch()
    config = ModelConfig(dtype="bfloat16", lora=LoraSettings(enabled=lora))
    policy = Policy(tiny_opt, config, OptimConfig())
    exact = Policy(tiny_opt, ModelConfig(lora=LoraSettings(enabled=lora)), OptimConfig())

    gap = (policy.token_logprobs(batch, 1.0) - exact.token_logprobs(batch, 1.0)).abs().max()

    assert 1e-5 < gap < 0.2
    policy.train_step(batch, AlgoConfig(), 1.0)
    assert {tensor.dtype for tensor in policy.state_dict()["parameters"].values()} == {torch.float32}
    assert {t.dtype for t in policy.export_weights().tensors.values()} == {torch.float32 if lora else torch.bfloat16}
