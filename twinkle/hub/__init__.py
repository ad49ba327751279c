"""From a model id to a local folder: plain paths, aliases, the Hugging Face Hub and ModelScope."""

from twinkle.hub.resolution import ALIASES_VARIABLE, OFFLINE_VARIABLE, environment, resolve
from twinkle.hub.settings import HubConfig

__all__ = ["ALIASES_VARIABLE", "OFFLINE_VARIABLE", "HubConfig", "environment", "resolve"]
