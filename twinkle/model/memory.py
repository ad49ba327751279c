"""How much memory a training step takes, estimated from config.json alone."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from twinkle.hub import resolve
from twinkle.model.attention import FLOAT64
from twinkle.model.config import ModelConfig
from twinkle.model.folder import DTYPES
from twinkle.model.loading import attention_of, skeleton

FLOAT32 = 4


@dataclass(frozen=True)
class MemoryEstimate:
    """Parameters, counted exactly, and bytes on the trainer's device.

    Attributes:
        parameters, trainable: numbers of parameters, an adapter's included.
        weights, gradients, optimizer: bytes; exact for AdamW.
        activations: bytes of one micro-batch until its backward pass is over; right to a factor of about two.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    folder: str | Path, config: ModelConfig, *, rows: int, tokens: int, kl_coef: float = 0.0
) -> MemoryEstimate:
    """What training the model in `folder` takes with micro-batches of `rows` rows of `tokens` tokens; loads no weights.

    With all weights trained and `kl_coef` > 0 a frozen reference model lies beside the policy and is counted.
    """
    path, width = str(resolve(folder)), DTYPES[config.dtype].itemsize
    model = skeleton(path, config)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    frozen = parameters - trainable if config.lora.enabled else parameters * bool(kl_coef)
    return MemoryEstimate(
        parameters=parameters,
        trainable=trainable,
        weights=trainable * FLOAT32 + frozen * width,
        gradients=trainable * FLOAT32,
        optimizer=2 * trainable * FLOAT32,
        activations=_activations(path, config, rows, tokens),
    )


def _activations(folder: str, config: ModelConfig, rows: int, tokens: int) -> int:
    """Korthikanti et al. 2022, arXiv:2205.05198, eq. 2: a layer keeps 17 h + 2.5 a s numbers for each token (h hidden
    size, a heads, s tokens of a row; the second term only where attention is eager; in float64 it keeps inputs and
    output, 4 h, at twice the width), and the loss three float32 copies of the logits."""
    shape = AutoConfig.from_pretrained(folder).get_text_config()
    kept = {"eager": 2.5 * shape.num_attention_heads * tokens, FLOAT64: 8.0 * shape.hidden_size}
    numbers = 17 * shape.hidden_size + kept.get(attention_of(config), 0.0)
    per_token = shape.num_hidden_layers * numbers * DTYPES[config.dtype].itemsize
    return int(rows * tokens * (per_token + 3 * shape.vocab_size * FLOAT32))
