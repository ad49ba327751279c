"""``python -m twinkle_operator.crd --write | --check``: the files that are made from the types."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from twinkle_operator.crd.definition import definition, stack_schema
from twinkle_operator.crd.reference import reference

ROOT = Path(__file__).parents[3]
CRD = Path("charts/twinkle-operator/files/trainingstacks.twinkle.dev.yaml")
REFERENCE = Path("docs/trainingstack.md")
_MADE_BY = "python -m twinkle_operator.crd --write"
MOST_BYTES = 256 * 1024
"""Of the CustomResourceDefinition: client-side apply keeps a copy of it in an annotation of at most this size."""


class _Plain(yaml.SafeDumper):
    """Writes what is used twice twice: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def files() -> dict[Path, str]:
    """What each made file holds, by its path in the repository."""
    note = f"Made from the operator's types by `{_MADE_BY}`: change those."
    crd = yaml.dump(definition(), Dumper=_Plain, sort_keys=False, width=120)
    return {
        CRD: f"# {note}\n{crd}",
        REFERENCE: f"<!-- {note} -->\n\n{reference(stack_schema())}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or say which is stale; 0, or 1 when one is."""
    parser = argparse.ArgumentParser(prog="python -m twinkle_operator.crd", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write them")
    mode.add_argument("--check", action="store_true", help="fail when one is not what the types make")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: that of this file)")
    options = parser.parse_args(arguments)
    made = {options.root / path: text for path, text in files().items()}
    if options.write:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return 0
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(options.root)} is stale: run `{_MADE_BY}`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
