"""Local files and folders through the `datasets` library."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle.data.base import PromptRow
from twinkle.data.record import Columns, prompt_row
from twinkle.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = {".parquet": "from_parquet", ".json": "from_json", ".jsonl": "from_json", ".csv": "from_csv"}


def read_dataset(path: str | Path, columns: Columns, *, split: str = "train") -> list[PromptRow]:
    """The rows of a parquet, json, jsonl or csv file, or of a folder written by `save_to_disk` (its `split`, if it
    has several).

    Nothing is left in the user's cache. Raises DataError for a file that cannot be read, holds no row, or lacks a
    column (the row is named), ConfigError when `datasets` is not installed.
    """
    dataset = _read(Path(path), split)
    if not len(dataset):
        raise DataError(f"{path} holds no row: give a file with at least a prompt and its answer.")
    return [prompt_row(record, columns, f"{path}:row {number}") for number, record in enumerate(dataset, start=1)]


def _read(path: Path, split: str) -> "Dataset":
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ConfigError("data=hf needs the package datasets: install twinkle-rl[torch].") from error
    if not path.exists():
        raise DataError(f"data.path={str(path)!r} is not there; data=hf reads local files and folders.")
    if path.is_dir():
        return _part(_guarded(path, lambda: datasets.load_from_disk(path, keep_in_memory=True)), path, split)
    reader = SUFFIXES.get(path.suffix)
    if reader is None:
        raise DataError(
            f"data.path={str(path)!r} is no file that data=hf reads; give one of {', '.join(SUFFIXES)}, or a folder."
        )
    with tempfile.TemporaryDirectory() as cache:
        return _guarded(
            path, lambda: getattr(datasets.Dataset, reader)(str(path), keep_in_memory=True, cache_dir=cache)
        )


def _part(loaded: Any, path: Path, split: str) -> "Dataset":
    """The split of a folder that has several, or the only data that it has."""
    if not hasattr(loaded, "keys"):
        return loaded
    if split not in loaded:
        raise DataError(f"{path} has no split {split!r} (splits: {', '.join(map(repr, loaded))}); set data.split.")
    return loaded[split]


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """`read()`, whose failures of any library below it become a DataError with the last sentence of the cause."""
    try:
        return read()
    except Exception as error:
        cause = error.__cause__ or error
        raise DataError(f"{path} cannot be read by datasets: {type(cause).__name__}: {cause}") from error
