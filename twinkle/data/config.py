"""Settings of the prompts; plain data, no heavy imports."""

from dataclasses import dataclass

from twinkle.choices import one_of
from twinkle.errors import ConfigError

SOURCES = ("reverse_digits", "even_digits", "jsonl", "hf")
OF_FILES = ("jsonl", "hf")


@dataclass(frozen=True)
class DataConfig:
    """Where prompts come from, and what their responses earn.

    Attributes:
        name: reverse_digits, even_digits, jsonl (a file of JSON objects, one a line) or hf (through ``datasets``).
        reward: exact_match, fraction_correct, even_fraction, or a function of (prompt, response, answer) as
            ``module:function``.
        held_out_prompts: prompts set aside for evaluation; none of them is ever trained on.
        digits: characters of the toy tasks' prompts.
        length: digits of a toy prompt; for even_digits, of the response too.
        path: for jsonl a file, or sums_in_words for the one that ships with the package; for hf a parquet, json, jsonl
            or csv file, or a folder of ``save_to_disk``.
        prompt_column, answer_column: where prompt (text, or a list of chat messages that the assistant is to answer)
            and answer (text) stand.
        tools_column: where the functions stand that the assistant may call, as JSON schemas or their text; a row may
            have none. null: there are no tools.
        split: which part of a ``save_to_disk`` folder that has several.
    """

    name: str = "reverse_digits"
    reward: str = "fraction_correct"
    held_out_prompts: int = 64
    digits: str = "01234567"
    length: int = 4
    path: str = ""
    prompt_column: str = "prompt"
    answer_column: str = "answer"
    tools_column: str | None = None
    split: str = "train"

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        one_of("data.name", self.name, SOURCES)
        if not self.reward:
            raise ConfigError("data.reward is empty: name one, for example exact_match or my_module:my_function.")
        if self.held_out_prompts < 1:
            raise ConfigError(f"data.held_out_prompts={self.held_out_prompts} must be at least 1.")
        if self.name in OF_FILES:
            if not self.path:
                raise ConfigError(f"data.path is empty, but data={self.name} reads a file: set data.path=<file>.")
            return
        if self.length < 1:
            raise ConfigError(f"data.length={self.length} must be at least 1.")
        if len(set(self.digits)) < 2 or not (self.digits.isdigit() and self.digits.isascii()):
            raise ConfigError(
                f"data.digits={self.digits!r} must be at least two different digits, for example 01234567."
            )
