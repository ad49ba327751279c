"""The files in invalid/: stacks that are refused, each the valid one of base.yaml with a change.

before: {PATH: VALUE}   of an update: what is changed in base.yaml to make the stack that is there
change: {PATH: VALUE}   what is changed in it, or in base.yaml, to make the refused one; [3] may append
remove: [PATH]          what is taken out after that
where: PATH             the field that the sentence is about; empty: the object
refused: TEXT           a part of the sentence, offline and from the API server
by: cel | schema | update
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from twinkle_operator.words import KIND

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
Object = dict[str, Any]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    where: str
    refused: str
    by: str
    before: dict[str, Any] | None = None
    change: dict[str, Any] = {}
    remove: list[str] = []

    def stack(self) -> Object:
        """What is refused."""
        changed = _changed(self.old() or base(), self.change)
        for path in self.remove:
            holder, key = _holder(changed, path)
            del holder[key]
        return changed

    def old(self) -> Object | None:
        """Of an update: the stack before it, which is valid."""
        return None if self.before is None else _changed(base(), self.before)


def base() -> Object:
    """The valid stack; a fresh copy."""
    loaded: Object = yaml.safe_load((HERE / "base.yaml").read_text("utf-8"))
    return loaded


def cases() -> dict[str, Case]:
    """Every case by the name of its file."""
    files = sorted((HERE / "invalid").glob("*.yaml"))
    return {file.stem: msgspec.convert(yaml.safe_load(file.read_text("utf-8")), Case) for file in files}


def examples() -> dict[str, Object]:
    """The stacks that are shown to people, by file and place in it."""
    found = {}
    for file in sorted(EXAMPLES.glob("*.yaml")):
        for index, value in enumerate(yaml.safe_load_all(file.read_text("utf-8"))):
            if value["kind"] == KIND:
                found[f"{file.stem}-{index}"] = value
    return found


def _changed(stack: Object, changes: dict[str, Any]) -> Object:
    for path, value in changes.items():
        holder, key = _holder(stack, path)
        if isinstance(holder, list) and key == len(holder):
            holder.append(copy.deepcopy(value))
        else:
            holder[key] = copy.deepcopy(value)
    return stack


def _holder(stack: Object, path: str) -> tuple[Any, Any]:
    """What holds the field of a path such as spec.deviceGroups[1].mesh, and its key there; mappings are made."""
    *parts, last = [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]
    holder: Any = stack
    for part in parts:
        holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
    return holder, last
