"""Attention that adds up in float64 between float32 inputs and float32 outputs.

A trainer reads whole padded rows, a sampler one token after a cache. The kernels add up in different orders then, and
attention is where their results part first; every layer behind it multiplies the difference. Rounded once from float64,
the results of both are nearly always the same bits, and nearer to the true ones. The CPU kernel keeps no scores.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import PreTrainedModel

FLOAT64 = "sdpa_float64"


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of transformers on float64 copies; the output has the dtype of ``query``."""
    wide = (query.double(), key.double(), value.double())
    output, _ = sdpa_attention_forward(module, *wide, attention_mask, **settings)
    return output.to(query.dtype), None


def takes_float64(model: PreTrainedModel) -> bool:
    """Whether the model's attention is this function's: it lets others attend for it, and caps no scores."""
    capped = getattr(model.config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    return bool(model._supports_attention_backend and model._supports_sdpa) and not capped


AttentionInterface.register(FLOAT64, attend)
AttentionMaskInterface.register(FLOAT64, sdpa_mask)
