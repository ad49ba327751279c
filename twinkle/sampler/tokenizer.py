"""The tokenizer of a model's folder."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from twinkle.errors import ConfigError, ModelNotFoundError

# Without any of these transformers makes up a tokenizer that knows no words.
FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in the folder; ModelNotFoundError when there is none, or none that can be loaded."""
    if not any(next(folder.glob(pattern), None) for pattern in FILES):
        raise ModelNotFoundError(f"the folder {str(folder)!r} holds no tokenizer (tokenizer.json, for instance)")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"the folder {str(folder)!r} holds no tokenizer that can be loaded: {error}"
        ) from error


def require_same_vocabulary(tokenizer: Any, vocab_size: int, folder: Path) -> None:
    """ConfigError for a tokenizer with tokens that its model has not."""
    if len(tokenizer) > vocab_size:
        raise ConfigError(
            f"the tokenizer in {str(folder)!r} has {len(tokenizer)} tokens, its model only {vocab_size}: they do not "
            "belong together"
        )
