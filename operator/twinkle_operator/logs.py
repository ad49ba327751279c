"""One line a record on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec

Format = Literal["text", "json"]


class Lines(logging.Formatter):
    """`2026-01-01T00:00:00Z WARNING name: text`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)


class Json(logging.Formatter):
    """The same as an object; a traceback is part of the message."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        line = {"time": _time(record), "level": record.levelname, "logger": record.name, "message": text}
        return msgspec.json.encode(line).decode()


def set_up(form: Format, level: str) -> None:
    """Log everything from that level on, in that form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
