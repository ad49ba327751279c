"""A file of JSON objects, one a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twinkle.data.base import PromptRow
from twinkle.data.record import Columns, prompt_row
from twinkle.errors import DataError


def read_jsonl(path: str | Path, columns: Columns) -> list[PromptRow]:
    """The rows of the file at `path`, in its order; blank lines are passed over.

    Raises:
        DataError: the file is not there, holds no row, or a line is no JSON object with the columns (file:line is
            named).
    """
    rows = [prompt_row(record, columns, f"{path}:{number}") for number, record in _records(Path(path))]
    if not rows:
        raise DataError(f"{path} holds no row: give a file with one JSON object a line.")
    return rows


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line that is not blank."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: no JSON ({error.msg} at character {error.pos + 1}): {line[:60]!r}"
            ) from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: a {type(record).__name__} where an object is wanted: {line[:60]!r}")
        yield number, record


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"data.path={str(path)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no UTF-8 text (byte {error.start}); convert it, or set data=hf for parquet."
        ) from error
