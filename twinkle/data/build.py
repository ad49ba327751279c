"""From settings to a source of prompts."""

from collections.abc import Callable
from pathlib import Path

from twinkle.data.base import PromptSource
from twinkle.data.config import DataConfig
from twinkle.data.toy import DigitPrompts, even_digits, reversed_digits

ANSWERS: dict[str, Callable[[str], str]] = {"reverse_digits": reversed_digits, "even_digits": even_digits}

ONE_OF_MANY = {"even_digits": "any even digits"}


def make_source(config: DataConfig, seed: int) -> PromptSource:
    """The source of prompts that `config` describes, after validating it; `seed` decides order and split.

    Raises ConfigError for settings that cannot work and DataError for a file that cannot be used.
    """
    config.validate()
    if config.name in ANSWERS:
        return DigitPrompts(
            seed=seed,
            digits=config.digits,
            length=config.length,
            held_out_prompts=config.held_out_prompts,
            answer_of=ANSWERS[config.name],
            expected=ONE_OF_MANY.get(config.name, ""),
        )
    return _table(config, seed)


def _table(config: DataConfig, seed: int) -> PromptSource:
    from twinkle.data.hf import read_dataset
    from twinkle.data.jsonl import read_jsonl
    from twinkle.data.record import Columns
    from twinkle.data.sums import SUMS_FILE
    from twinkle.data.table import TablePrompts

    path = SUMS_FILE if config.path == SUMS_FILE.stem else Path(config.path)
    columns = Columns(config.prompt_column, config.answer_column, config.tools_column)
    rows = read_jsonl(path, columns) if config.name == "jsonl" else read_dataset(path, columns, split=config.split)
    return TablePrompts(rows, seed=seed, held_out_prompts=config.held_out_prompts, origin=str(path))
