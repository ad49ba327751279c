"""Attention that adds up in float64 between float32 inputs and float32 outputs.

A trainer reads whole padded rows, a sampler one token after a cache. The kernels add up in different orders then, and
attention is where their results part first; every layer behind it multiplies the difference. Rounded once from float64,
the results of both are nearly always the same bits, and nearer to the true ones. The CPU kernel keeps no scores.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import PreTrainedModel

FLOAT64 = "sdpa_float64"
GROUPED = "sdpa_grouped"
"""sdpa of the model's own dtype, which copies no key for each of its heads while tokens are drawn."""


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of transformers on float64 copies; the output has the dtype of ``query``."""
    output, _ = attend_in_groups(module, query.double(), key.double(), value.double(), attention_mask, **settings)
    return output.to(query.dtype), None


def attend_in_groups(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of transformers. Where one token attends and its heads share keys in groups, the
    heads of a group count as that many tokens, so that no key is copied for each of its heads."""
    if query.shape[2] != 1 or query.shape[1] == key.shape[1]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore[no-any-return]
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    scale = settings.get("scaling")
    output = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scale)
    return output.reshape(rows, 1, heads, size), None


def takes_ours(model: PreTrainedModel) -> bool:
    """Whether these functions can be a model's attention: it lets others attend for it, and caps no scores."""
    capped = getattr(model.config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    return bool(model._supports_attention_backend and model._supports_sdpa) and not capped


AttentionInterface.register(FLOAT64, attend)
AttentionMaskInterface.register(FLOAT64, sdpa_mask)
AttentionInterface.register(GROUPED, attend_in_groups)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
