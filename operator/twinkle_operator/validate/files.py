"""The stacks of a YAML file, or why there are none: in the same words wherever a command reads one."""

from __future__ import annotations

import sys
from typing import BinaryIO

from twinkle_operator.problem import Problem
from twinkle_operator.validate.documents import Document, FileProblem, documents
from twinkle_operator.words import API_VERSION, GROUP, KIND

STDIN = "-"
MOST_BYTES = 1 << 20


def label(file: str) -> str:
    """A file as it is called in a message."""
    return "<stdin>" if file == STDIN else file


def stacks(file: str) -> list[Document]:
    """The documents that are meant as a TrainingStack, right or wrong; at least one. Other objects may stand beside.

    Args:
        file: a path; `-` is standard input.

    Raises:
        FileProblem: it cannot be read, is no YAML in UTF-8, is larger than `MOST_BYTES`, or holds no stack.
    """
    try:
        text = _bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileProblem("no text in UTF-8", error.object.count(b"\n", 0, error.start) + 1) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FileProblem(f"cannot be read: {why}", 1) from error
    found = [each for each in documents(text) if _is_meant(each)]
    if not found:
        raise FileProblem(f"no {KIND} in it (apiVersion: {API_VERSION})", 1)
    return found


def misnamed(document: Document) -> list[Problem]:
    """Why an object is no TrainingStack of this version, though it is meant as one."""
    wanted = {"apiVersion": API_VERSION, "kind": KIND}
    return [
        Problem((key,), f"is {document.value.get(key)!r}, must be {value!r}")
        for key, value in wanted.items()
        if document.value.get(key) != value
    ]


def repeated(document: Document) -> list[Problem]:
    """Its keys that stand twice."""
    return [Problem(path, "stands here twice; YAML takes the last") for path in document.twice]


def _is_meant(document: Document) -> bool:
    """What bears our group or kind is meant for us."""
    value = document.value if isinstance(document.value, dict) else {}
    group = str(value.get("apiVersion", "")).partition("/")[0]
    return group == GROUP or value.get("kind") == KIND


def _bytes(file: str) -> bytes:
    if file == STDIN:
        return _bounded(sys.stdin.buffer)
    with open(file, "rb") as opened:
        return _bounded(opened)


def _bounded(opened: BinaryIO) -> bytes:
    read = opened.read(MOST_BYTES + 1)
    if len(read) > MOST_BYTES:
        raise FileProblem(f"larger than {MOST_BYTES} bytes: no file of stacks is", 1)
    return read
