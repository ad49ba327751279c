"""Templates of well-known formats, for tokenizers with the format's tokens but no chat template, or a broken one."""

from importlib.resources import files
from typing import Any

from twinkle.template.base import Template, require_tokens


def _source(name: str) -> str:
    return (files("twinkle.template") / f"{name}.jinja").read_text(encoding="utf-8")


class ChatMLTemplate(Template):
    """ChatML, the format of Qwen and many others: ``<|im_start|>role``, the content, ``<|im_end|>``; tools in the style
    of Hermes."""

    chat_template = _source("chatml")

    def __init__(self, tokenizer: Any, **settings: Any) -> None:
        require_tokens(tokenizer, "chatml", ("<|im_start|>", "<|im_end|>"))
        super().__init__(tokenizer, **settings)


class Llama3Template(Template):
    """The format of Llama 3: ``<|start_header_id|>role<|end_header_id|>``, the content, ``<|eot_id|>``; tool calls are
    JSON objects with a name and parameters."""

    chat_template = _source("llama3")

    def __init__(self, tokenizer: Any, **settings: Any) -> None:
        require_tokens(tokenizer, "llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
        super().__init__(tokenizer, **settings)
