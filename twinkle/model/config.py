"""Settings of the trained model and of its optimizer; plain data, no torch."""

import math
from dataclasses import dataclass, field

from twinkle.choices import one_of
from twinkle.errors import ConfigError

DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")
TINY_MODELS = ("tiny-opt", "tiny-qwen2")


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter on a frozen model (Hu et al. 2021, arXiv:2106.09685); `enabled=False` trains all weights.

    `target_modules` is "all-linear" (every linear layer but the output head) or module names separated by commas.
    There is no dropout: it would make the trainer's log-probs differ from the sampler's.
    """

    enabled: bool = True
    r: int = 8
    alpha: int = 16
    target_modules: str = "all-linear"

    def validate(self) -> None:
        """Raise ConfigError naming the field that cannot work."""
        if self.r < 1:
            raise ConfigError(f"model.lora.r={self.r}: the rank of an adapter is at least 1, for example 8")
        if self.alpha < 1:
            raise ConfigError(f"model.lora.alpha={self.alpha}: give a positive number, for example 2 * r")
        if not self.target_modules.strip(" ,"):
            raise ConfigError("model.lora.target_modules is empty; give all-linear or names such as q_proj,v_proj")


@dataclass(frozen=True)
class TinySettings:
    """Shape of a model made on the spot when `model.id` is one of tiny-opt and tiny-qwen2.

    `alphabet` (OPT only): the characters that are tokens; `words` (OPT only): words that are one token each,
    separated by blanks, beside the alphabet. `end_is_rare` (OPT only): the end token starts out as
    unlikely as the other special tokens, which is right for answers of a fixed length.
    """

    alphabet: str = "01234567"
    words: str = ""
    end_is_rare: bool = True
    hidden_size: int = 64
    layers: int = 2
    max_positions: int = 64
    init_std: float = 0.08

    def validate(self) -> None:
        """Raise ConfigError naming the field that cannot work."""
        if self.hidden_size < 32 or self.hidden_size % 32:
            raise ConfigError(f"model.tiny.hidden_size={self.hidden_size}: give a multiple of 32, the width of a head")
        for name in ("layers", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.tiny.{name}={getattr(self, name)}: give at least 1")
        if not self.alphabet:
            raise ConfigError("model.tiny.alphabet is empty; give the characters that the model reads and writes")
        if not self.init_std > 0:
            raise ConfigError(f"model.tiny.init_std={self.init_std}: give a positive number, for example 0.08")


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained, and how it is held.

    `id` is a folder written by save_pretrained, hf://organisation/name@revision, ms://organisation/name, an alias of
    `hub.aliases`, or one of tiny-opt and tiny-qwen2. `seed` fixes a tiny model's weights and the adapter's start.
    `dtype` is what the forward pass computes in; log-probs, trained parameters and optimizer state are float32 always.
    `attention="auto"` is sdpa on CUDA and deterministic on a CPU: added up in float64 for float32 models, eager for
    others (attention.py).
    """

    id: str = "tiny-opt"
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "auto"
    lora: LoraSettings = field(default_factory=LoraSettings)
    tiny: TinySettings = field(default_factory=TinySettings)

    def validate(self) -> None:
        """Raise ConfigError naming the field that cannot work (whether the device is there is seen at load time)."""
        if not self.id:
            raise ConfigError("model.id is empty; give a model folder, or tiny-opt")
        one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.attention", self.attention, ATTENTIONS)
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise ConfigError(f"model.device={self.device!r}: give cpu, cuda or cuda:<index>")
        self.lora.validate()
        self.tiny.validate()


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), gradient clipping and the size of a micro-batch.

    `max_grad_norm=0` turns clipping off. A micro-batch takes at most `microbatch_rows` rows (0: all) and at most
    `tokens_per_microbatch` tokens with padding (0: any number; a single longer row still goes alone).
    """

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    microbatch_rows: int = 0
    tokens_per_microbatch: int = 0

    def validate(self) -> None:
        """Raise ConfigError naming the field that cannot work."""
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name}={getattr(self, name)}: give a positive number")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name}={getattr(self, name)}: give a number from 0 up to, not including, 1")
        for name in ("weight_decay", "max_grad_norm", "microbatch_rows", "tokens_per_microbatch"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name}={getattr(self, name)}: give 0 (off) or a positive number")
