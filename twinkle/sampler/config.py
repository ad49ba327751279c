"""Settings of generation; importable without torch."""

from dataclasses import dataclass, field
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError

ENGINES = ("torch", "vllm")


@dataclass(frozen=True)
class SamplerConfig:
    """How responses are drawn. The trainer divides logits by the same ``temperature``.

    Attributes:
        engine: ``torch``, plain PyTorch over any Hugging Face causal model, or ``vllm``.
        attached: the run starts no sampler; programs ``twinkle-sampler`` outside it answer its prompts, with these
            settings.
        engine_args: arguments of vLLM's engine, by their names there: ``sampler.engine_args.max_model_len=2048``.
        max_tokens: longest response, in tokens.
        temperature: > 0; sampling needs a distribution to differentiate.
        top_p, top_k: only 1.0 and -1 (off) while training: a truncated distribution is not the policy that is trained.
        stop, stop_token_ids: where a response ends besides the model's end-of-sequence token.
        ignore_eos: keep sampling past the end-of-sequence token, so that every response has ``max_tokens`` tokens.
    """

    engine: str = "torch"
    attached: bool = False
    engine_args: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False

    def validate(self) -> None:
        """Raise ConfigError for a value with which training cannot be right."""
        one_of("sampler.engine", self.engine, ENGINES)
        if self.engine_args and self.engine != "vllm":
            raise ConfigError(
                f"sampler.engine_args={self.engine_args} are vLLM's; set sampler=vllm, or leave them out."
            )
        if self.max_tokens < 1:
            raise ConfigError(f"sampler.max_tokens={self.max_tokens} must be at least 1.")
        if not self.temperature > 0:
            raise ConfigError(
                f"sampler.temperature={self.temperature} must be above 0: greedy responses are all alike, "
                "so no group of them carries a signal. Use 1.0."
            )
        if self.top_p != 1.0 or self.top_k != -1:
            raise ConfigError(
                f"sampler.top_p={self.top_p}, sampler.top_k={self.top_k}: training needs the whole distribution, "
                "because the log-probs of a truncated one belong to another policy. Set top_p=1.0 and top_k=-1."
            )
