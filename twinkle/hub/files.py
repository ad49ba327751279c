"""Which files of a repository a causal language model, its tokenizer or an adapter needs."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
SAFETENSORS = ("*.safetensors",)
BIN = ("*.bin",)
# Folders hold other formats of the same weights; so do these files, or they are a trainer's own.
UNWANTED = (
    "*/*",
    "consolidated*",
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "*.onnx",
    "README*",
    "LICENSE*",
)


def chosen(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The paths that fit one of the patterns and are not unwanted, in order."""
    patterns = tuple(patterns)
    return [path for path in paths if _fits(path, patterns) and not _fits(path, UNWANTED)]


def wanted(paths: Iterable[str]) -> list[str]:
    """What to fetch: configuration, tokenizer, and weights as safetensors, or as bin where there are none."""
    listed = list(paths)
    weights = chosen(listed, SAFETENSORS) or chosen(listed, BIN)
    return [*chosen(listed, SMALL), *weights]


def _fits(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
