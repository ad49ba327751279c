"""A file that says where a running queue is: its `controller_info` as JSON, readable by its owner only."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfer_queue.errors import ConfigurationError

MOST_BYTES = 1 << 20


def write_info(path: Path, info: Mapping[str, Any]) -> None:
    """Put `info` there with mode 0600 in one rename; what was there before is replaced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(dict(info), file)
            file.write("\n")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_info(path: Path) -> dict[str, Any]:
    """What `write_info` wrote; `ConfigurationError` says what is wrong with the file."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES)
        info = json.loads(text)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist: no queue is running there") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON, so no queue wrote it ({error})") from error
    if not isinstance(info, dict) or not isinstance(info.get("endpoint"), str):
        raise ConfigurationError(f"{path} names no queue: it has no 'endpoint'")
    return info


@contextmanager
def published(path: Path, info: Mapping[str, Any]) -> Iterator[None]:
    """The file is there while the block runs, and is taken away after it, unless another queue has replaced it."""
    write_info(path, info)
    try:
        yield
    finally:
        with contextlib.suppress(ConfigurationError, OSError):
            if read_info(path) == dict(info):
                path.unlink()
