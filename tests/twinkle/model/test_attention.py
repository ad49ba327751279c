"""Attention in float64: the same bits however the work is cut, exact gradients, and only where it fits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from transformers import Gemma2Config, Gemma2ForCausalLM

from tests.twinkle.model.conftest import PolicyMaker, random_batch
from twinkle.model.attention import FLOAT64, attend
from twinkle.model.config import LoraSettings, ModelConfig
from twinkle.model.folder import read_model
from twinkle.model.loading import load_frozen
from twinkle.sampler import TorchSampler

ROWS, HEADS, LENGTH, SIZE = 6, 2, 11, 32


def states(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (ROWS, HEADS, LENGTH, SIZE)
    query, key, value = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
    return query, key, value


def padded_causal_mask() -> Tensor:
    """Causal [rows, 1, length, length], the last two columns padding."""
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    mask[:, -2:] = False
    return mask.expand(ROWS, 1, LENGTH, LENGTH)


def test_a_cached_token_gets_the_bits_of_the_padded_row() -> None:
    query, key, value = states()

    rows, _ = attend(nn.Identity(), query, key, value, padded_causal_mask())
    for token in range(LENGTH - 2):
        cached = [state[:, :, : token + 1] for state in (key, value)]
        alone, _ = attend(nn.Identity(), query[:, :, token : token + 1], *cached, None)

        assert torch.equal(alone[:, 0], rows[:, token])
    assert rows.dtype == torch.float32
    plain = scaled_dot_product_attention(query, key, value, padded_causal_mask()).transpose(1, 2)
    assert not torch.equal(plain, rows)


def test_the_gradient_is_exact() -> None:
    leaves = [state[:2, :, :4].contiguous().requires_grad_() for state in states(torch.float64)]
    mask = padded_causal_mask()[:2, :, :4, :4]

    assert torch.autograd.gradcheck(lambda q, k, v: attend(nn.Identity(), q, k, v, mask)[0], leaves)


def test_gradients_of_float32_are_rounded_once() -> None:
    def gradients(dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [state.requires_grad_() for state in states(dtype)]
        output, _ = attend(nn.Identity(), *leaves, padded_causal_mask())
        return torch.autograd.grad(output, leaves, states(dtype)[0].transpose(1, 2))

    exact = [gradient.float() for gradient in gradients(torch.float64)]
    assert_close(list(gradients(torch.float32)), exact, rtol=1e-6, atol=1e-7)


def test_trainer_and_sampler_use_it_for_float32_on_a_cpu(make_policy: PolicyMaker, folder: Path) -> None:
    sampler, policy = TorchSampler(folder, exact_attention=True), make_policy(folder=folder)

    assert policy.model.config._attn_implementation == FLOAT64
    assert sampler._model.module.config._attn_implementation == FLOAT64


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"dtype": "bfloat16"}, "eager"), ({"attention": "eager"}, "eager"), ({"attention": "sdpa"}, "sdpa")],
)
def test_smaller_types_and_named_attention_stay_as_they_are(
    tiny_opt: Path, settings: dict[str, str], expected: str
) -> None:
    config = replace(ModelConfig(id=str(tiny_opt), lora=LoraSettings(enabled=False)), **settings)  # type: ignore[arg-type]

    assert load_frozen(str(tiny_opt), config).config._attn_implementation == expected


def test_a_model_that_caps_its_scores_stays_eager(tmp_path: Path) -> None:
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
    Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, attn_logit_softcapping=50.0)).save_pretrained(tmp_path)

    model = read_model(tmp_path, torch.device("cpu"), torch.float32, FLOAT64)

    assert model.config._attn_implementation == "eager"


def test_log_probs_round_to_their_own_size_and_not_to_that_of_the_logits(make_policy: PolicyMaker) -> None:
    policy, batch = make_policy(lora=False), random_batch()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(30.0)
        logits_BTV = policy.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    logp_BTV = logits_BTV[:, :-1].double().log_softmax(-1)
    exact_BT = logp_BTV.gather(2, batch.input_ids_BT[:, 1:, None])[..., 0]
    live_BT = batch.response_mask_BT[:, 1:] > 0

    ours_BT = policy.token_logprobs(batch, 1.0)[:, 1:]

    assert logits_BTV.abs().max() > 64
    assert_close(ours_BT[live_BT].double(), exact_BT[live_BT], rtol=1.5e-7, atol=1e-7)
