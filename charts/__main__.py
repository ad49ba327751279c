"""Writes what is generated in the charts; with --check, says what is stale instead: `python -m charts [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from charts import dashboards, permissions, readme, schema

HERE = Path(__file__).parent
OPERATOR, STACK = HERE / "twinkle-operator", HERE / "training-stack"


def generated() -> Iterator[tuple[Path, str]]:
    """Every file that is made from another, with what it should hold."""
    yield OPERATOR / "files" / "permissions.yaml", permissions.text()
    for name in dashboards.DASHBOARDS:
        yield OPERATOR / "files" / "dashboards" / f"{name}.json", dashboards.text(name)
    yield STACK / "values.schema.json", schema.text(STACK / "values.schema.in.json", OPERATOR / "files" / schema.CRD)
    for chart in (OPERATOR, STACK):
        source = (chart / "README.md").read_text()
        yield chart / "README.md", readme.renewed(source, (chart / "values.yaml").read_text())


def main(arguments: list[str]) -> int:
    stale = [(path, text) for path, text in generated() if not path.is_file() or path.read_text() != text]
    for path, text in stale:
        if arguments == ["--check"]:
            print(f"{path.relative_to(HERE.parent)} is stale: run 'make charts'", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(path.relative_to(HERE.parent))
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
