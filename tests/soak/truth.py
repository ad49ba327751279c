"""The ledger of truth: what each process knows was acknowledged, in a file of its own, and what must follow from all.

A process notes what it is about to ask (`try`) and what was answered (`done`); one that died in between leaves the
question open. Every line is flushed to the disk before the process goes on.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Notes:
    """One process's file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(self, kind: str, **what: Any) -> None:
        """Write a line down for good."""
        os.write(self._file, json.dumps({"kind": kind, **what}).encode() + b"\n")
        os.fdatasync(self._file)


def read(folder: Path) -> list[Line]:
    """All lines of all processes; a process may have died within its last one."""
    lines = []
    for path in sorted(folder.iterdir()):
        for line in path.read_bytes().split(b"\n")[:-1]:
            lines.append(json.loads(line))
    return lines


@dataclass
class Truth:
    """What is known of each row (id) and task."""

    put: dict[int, int] = field(default_factory=dict)
    """Id -> checksum, for each row whose put was acknowledged."""
    acked: dict[str, dict[int, set[Any]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """Task -> id -> the leases under which it was acknowledged."""
    perhaps: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Task -> ids whose ack (or vote, or write that stands for it) may have been carried out."""
    dropped: set[int] = field(default_factory=set)
    cleared: set[int] = field(default_factory=set)
    bad: list[str] = field(default_factory=list)


def gathered(lines: Iterable[Line], ranks: Mapping[str, int]) -> Truth:
    """The truth that these lines add up to; a task with several ranks has consumed what all of them voted for."""
    truth = Truth()
    votes: dict[tuple[str, int], dict[int, list[int]]] = defaultdict(dict)
    seen: list[tuple[str, int, int]] = []
    row_of: dict[int, int] = {}
    for line in lines:
        kind, task, ids = line["kind"], line.get("task", ""), line.get("ids", [])
        if kind == "put":
            for index, told in zip(ids, line["sums"], strict=True):
                if index in truth.put:
                    truth.bad.append(f"row {index} was given to two puts")
                truth.put[index] = told
        elif kind == "seen":
            seen += [(task, index, told) for index, told in zip(ids, line["sums"], strict=True)]
            for index, key in zip(ids, line["keys"], strict=True):
                if row_of.setdefault(key, index) != index:
                    truth.bad.append(f"one put made the rows {row_of[key]} and {index}")
        elif kind in ("try ack", "wrote"):
            truth.perhaps[task].update(ids)
        elif kind == "ack" and ranks.get(task, 1) > 1:
            votes[task, line["lease"]][line["rank"]] = ids
        elif kind == "ack":
            for index in ids:
                truth.acked[task][index].add(line["lease"])
        elif kind in ("drop", "try drop"):
            truth.dropped.update(ids)
        elif kind == "clear":
            truth.cleared.update(ids)
        elif kind == "bad":
            truth.bad.append(line["text"])
    for (task, lease), by_rank in votes.items():
        for ids in by_rank.values():
            if len(by_rank) == ranks[task]:
                for index in ids:
                    truth.acked[task][index].add(lease)
    for task, index, told in seen:
        if truth.put.get(index, told) != told:
            truth.bad.append(f"task {task!r} read another value of row {index} than was put")
    return truth


def faults(truth: Truth, resident: Mapping[str, set[int]], tasks: Iterable[str]) -> list[str]:
    """Every row that is lost or was consumed twice; `resident` are the ids that each task can still see."""
    found = list(truth.bad)
    for task in tasks:
        acked, there = truth.acked[task], resident.get(task, set())
        gone = truth.dropped | truth.cleared | truth.perhaps[task]
        for index in truth.put:
            if index not in acked and index not in there and index not in gone:
                found.append(f"row {index} is lost to task {task!r}")
        for index, leases in acked.items():
            if len(leases) > 1:
                found.append(f"row {index} was consumed by task {task!r} under the leases {sorted(leases)}")
    return found
