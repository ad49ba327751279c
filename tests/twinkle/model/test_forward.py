"""Models whose forward pass takes fewer arguments than most."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, PreTrainedConfig, TrOCRConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bloom import BloomForCausalLM
from transformers.models.mamba import MambaForCausalLM
from transformers.models.trocr import TrOCRForCausalLM

from tests.twinkle.model.conftest import PolicyMaker, random_batch
from twinkle.data_format import SamplingParams
from twinkle.errors import ConfigError
from twinkle.model.batch import make_batch
from twinkle.model.folder import without_progress_bars
from twinkle.model.forward import accepted_arguments
from twinkle.model.tiny import character_tokenizer
from twinkle.rl.config import AlgoConfig
from twinkle.sampler import TorchSampler

BLOOM = BloomConfig(vocab_size=12, hidden_size=32, n_layer=2, n_head=2)
TROCR = TrOCRConfig(
    vocab_size=12,
    d_model=32,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=64,
    max_position_embeddings=64,
    is_decoder=True,
)
MAMBA = MambaConfig(vocab_size=12, hidden_size=32, num_hidden_layers=1)


def made(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config).eval()


@pytest.fixture(params=[(BloomForCausalLM, BLOOM), (TrOCRForCausalLM, TROCR)], ids=["bloom", "trocr"])
def odd_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Bloom takes no position_ids; TrOCR's decoder takes neither these nor logits_to_keep."""
    with without_progress_bars():
        made(*request.param).save_pretrained(tmp_path)
    character_tokenizer("01234567", 64).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("lora", [True, False])
def test_a_policy_trains_a_model_that_takes_fewer_arguments(
    odd_folder: Path, make_policy: PolicyMaker, lora: bool
) -> None:
    policy, batch = make_policy(folder=odd_folder, lora=lora), random_batch()

    logp_BT = policy.token_logprobs(batch, 1.0)
    stats = policy.train_step(batch, AlgoConfig(), 1.0)

    for row in range(len(batch)):
        ids = batch.input_ids_BT[row][batch.attention_mask_BT[row] == 1]
        with torch.no_grad():
            logp_TV = made_again(odd_folder)(ids[None]).logits[0].log_softmax(-1)
        expected = logp_TV[:-1].gather(1, ids[1:, None])[:, 0] * batch.response_mask_BT[row, 1 : len(ids)]
        assert_close(logp_BT[row, 1 : len(ids)], expected, atol=1e-5, rtol=0)
    assert stats.grad_norm > 0
    assert not torch.equal(policy.token_logprobs(batch, 1.0), logp_BT)


def test_what_is_sampled_from_such_a_model_is_trained_under_the_same_log_probs(
    odd_folder: Path, make_policy: PolicyMaker
) -> None:
    prompt = [1, 5, 6, 7]

    drawn = TorchSampler(odd_folder).sample({"input_ids": prompt}, SamplingParams(max_tokens=6, seed=0)).sequences[0]

    batch = make_batch([prompt], [drawn.tokens], [drawn.logprobs], [0.0])
    logp_BT = make_policy(folder=odd_folder).token_logprobs(batch, 1.0)
    assert_close(logp_BT, batch.old_logprobs_BT, atol=1e-5, rtol=0)


def test_a_model_with_a_recurrent_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="MambaForCausalLM keeps a recurrent state"):
        accepted_arguments(made(MambaForCausalLM, MAMBA))


def made_again(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    return model
