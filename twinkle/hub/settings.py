"""Settings of the hubs; plain data, no heavy imports."""

from dataclasses import dataclass, field

from twinkle.errors import ConfigError


@dataclass(frozen=True)
class HubConfig:
    """Where models come from.

    Attributes:
        aliases: model id -> a folder, or another id (a mirror). Beside TWINKLE_MODEL_ALIASES, which they overrule.
        offline: nothing is asked of any hub; only what lies in the caches is used. Environment: TWINKLE_HUB_OFFLINE=1
            for both hubs, HF_HUB_OFFLINE=1 for Hugging Face.
        stall_s: seconds without a new byte or an answer after which a download ends with an error.

    The rest is set where every tool of the hub looks for it: HF_ENDPOINT, HF_HOME, HF_TOKEN; MODELSCOPE_DOMAIN (or
    MODELSCOPE_ENDPOINT), MODELSCOPE_CACHE, MODELSCOPE_API_TOKEN.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    offline: bool = False
    stall_s: float = 300.0

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        for name, target in self.aliases.items():
            if not name or not target:
                raise ConfigError(f"hub.aliases has {name!r}: {target!r}; give a model id and a folder or another id.")
        if not self.stall_s > 0:
            raise ConfigError(f"hub.stall_s={self.stall_s} must be above 0 seconds.")
