"""Settings of the template that makes prompts of conversations; plain data, no heavy imports."""

from dataclasses import dataclass
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError

NAMES = ("auto", "chat", "plain", "chatml", "qwen", "llama3")


@dataclass(frozen=True)
class TemplateConfig:
    """How conversations become token ids.

    Attributes:
        name: auto (the tokenizer's chat template, or plain text where it has none), chat (its chat template or an
            error), plain, chatml (also called qwen) or llama3.
        system_prompt: goes in front of prompts that have no system message.
    """

    name: str = "auto"
    system_prompt: str | None = None

    def validate(self) -> None:
        """Raise ConfigError for a name that is no template's."""
        one_of("template.name", self.name, NAMES)
        if self.system_prompt == "":
            raise ConfigError("template.system_prompt is empty; give a text, or null for none.")

    def arguments(self) -> dict[str, Any]:
        """What the template is made with, beside its tokenizer."""
        return {"system_prompt": self.system_prompt}
