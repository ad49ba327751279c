"""`twinkle validate`: files in, one line for each problem out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from twinkle_operator.problem import Problem
from twinkle_operator.validate.documents import Document, FileProblem
from twinkle_operator.validate.files import label, stacks
from twinkle_operator.validate.stack import check_document
from twinkle_operator.words import KIND

VALID, INVALID = 0, 2
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
    findings, valid = [], 0
    olds, troubles = _read(before) if before is not None else ([], [])
    findings += troubles
    for file in files:
        read, troubles = _read(file)
        valid += len(read)
        for document in read:
            troubles += _check(file, document, olds if before is not None else None, refused)
        troubles += _doubled(file, read)
        findings += sorted(set(troubles))
    for finding in findings:
        print(finding)
    if any(finding.severity == "error" for finding in findings):
        return INVALID
    print(f"{valid} {KIND}{'s' if valid > 1 else ''} valid.")
    return VALID


def _read(file: str) -> tuple[list[Document], list[Finding]]:
    try:
        return stacks(file), []
    except FileProblem as error:
        return [], [Finding(label(file), error.line, "error", str(error))]


def _check(file: str, document: Document, olds: Iterable[Document] | None, refused: Overrides | None) -> list[Finding]:
    value = document.value
    before = None if olds is None else next((old.value for old in olds if _same(old.value, value)), None)
    problems = check_document(document, before)
    if refused is not None and not any(_concerns_run(problem.path) for problem in problems):
        run = value["spec"]["run"]
        problems += refused(run["experiment"], run.get("overrides") or [])
    if olds is not None and before is None:
        problems.append(Problem(("metadata", "name"), "no stack of this name is in the file of --from"))
    return [
        Finding(label(file), document.line(problem.path), problem.severity, problem.sentence) for problem in problems
    ]


def _doubled(file: str, read: Iterable[Document]) -> Iterator[Finding]:
    path, first = ("metadata", "name"), dict[str, int]()
    for document in read:
        names = list(_names(document.value))
        line = document.line(path)
        above = first.setdefault(repr(names), line)
        if above != line and names[0] is not None:
            problem = Problem(path, f"this stack stands in line {above} already; kubectl takes the last")
            yield Finding(label(file), line, problem.severity, problem.sentence)


def _concerns_run(path: tuple[str | int, ...]) -> bool:
    """Whether spec.run may not be what it should be."""
    return path in ((), ("apiVersion",), ("kind",), ("spec",)) or path[:2] == ("spec", "run")


def _same(one: Any, other: Any) -> bool:
    return list(_names(one)) == list(_names(other))


def _names(value: Any) -> Iterator[object]:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    for key in ("name", "namespace"):
        yield metadata.get(key) if isinstance(metadata, dict) else None
    yield value.get("kind") if isinstance(value, dict) else None
