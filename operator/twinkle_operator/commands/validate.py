"""`twinkle validate`: files in, one line for each problem out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from twinkle_operator.problem import Problem
from twinkle_operator.validate.documents import Document, SyntaxProblem, documents
from twinkle_operator.validate.stack import check
from twinkle_operator.words import API_VERSION, GROUP, KIND

VALID, INVALID = 0, 2
STDIN = "-"
Overrides = Callable[[str, Sequence[str]], Iterable[Problem]]


class Finding(msgspec.Struct, frozen=True, order=True):
    """One line of the output."""

    file: str
    line: int
    severity: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.severity}: {self.text}"


def validate(files: Sequence[str], before: str | None = None, refused: Overrides | None = None) -> int:
    """Print what is wrong with the stacks in these files, in the order of the files.

    Args:
        files: paths; `-` is standard input.
        before: a file with the stacks as they are now.
        refused: what the training program says of an experiment and its overrides; the operator does not hold it.

    Returns:
        0, also with warnings; 2 with an error or when no file holds a stack.
    """
    findings, stacks = [], 0
    olds, troubles = _read(before) if before is not None else ([], [])
    findings += troubles
    for file in files:
        read, troubles = _read(file)
        own = [(document, _stack_troubles(file, document)) for document in read if _concerns_us(document)]
        stacks += len(own)
        if not own and not troubles:
            troubles = [Finding(_label(file), 1, "error", f"no {KIND} in it (apiVersion: {API_VERSION})")]
        for document, wrong in own:
            troubles += wrong or _check(file, document, olds if before is not None else None, refused)
        findings += sorted(set(troubles))
    for finding in findings:
        print(finding)
    if any(finding.severity == "error" for finding in findings):
        return INVALID
    print(f"{stacks} {KIND}{'s' if stacks > 1 else ''} valid.")
    return VALID


def _read(file: str) -> tuple[list[Document], list[Finding]]:
    label = _label(file)
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text("utf-8")
        return list(documents(text)), []
    except SyntaxProblem as error:
        return [], [Finding(label, error.line, "error", str(error))]
    except UnicodeDecodeError:
        return [], [Finding(label, 1, "error", "no text in UTF-8")]
    except OSError as error:
        return [], [Finding(label, 1, "error", f"cannot be read: {error.strerror}")]


def _label(file: str) -> str:
    return "<stdin>" if file == STDIN else file


def _concerns_us(document: Document) -> bool:
    """Other objects may stand beside stacks; what bears our group or kind is meant for us."""
    value = document.value if isinstance(document.value, dict) else {}
    group = str(value.get("apiVersion", "")).partition("/")[0]
    return group == GROUP or value.get("kind") == KIND


def _stack_troubles(file: str, document: Document) -> list[Finding]:
    """Why an object is no TrainingStack of this version, though it looks like one."""
    troubles = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        given = document.value.get(key)
        if given != wanted:
            text = f"{key}: is {given!r}, must be {wanted!r}"
            troubles.append(Finding(_label(file), document.line((key,)), "error", text))
    return troubles


def _check(file: str, document: Document, olds: Iterable[Document] | None, refused: Overrides | None) -> list[Finding]:
    label, value = _label(file), document.value
    before = None if olds is None else next((old.value for old in olds if _same(old.value, value)), None)
    problems = check(value, before)
    if refused is not None and not any(_concerns_run(problem.path) for problem in problems):
        run = value["spec"]["run"]
        problems += refused(run["experiment"], run.get("overrides") or [])
    problems += [Problem(path, "stands here twice; YAML takes the last") for path in document.twice]
    if olds is not None and before is None:
        problems.append(Problem(("metadata", "name"), "no stack of this name is in the file of --from"))
    return [
        Finding(label, document.line(problem.path), problem.severity, f"{problem.where}: {problem.message}")
        for problem in problems
    ]


def _concerns_run(path: tuple[str | int, ...]) -> bool:
    """Whether spec.run may not be what it should be."""
    return path == ("spec",) or path[:2] == ("spec", "run")


def _same(one: Any, other: Any) -> bool:
    return list(_names(one)) == list(_names(other))


def _names(value: Any) -> Iterator[object]:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    for key in ("name", "namespace"):
        yield metadata.get(key) if isinstance(metadata, dict) else None
    yield value.get("kind") if isinstance(value, dict) else None
