"""`twinkle render`: stacks in, the operator's children out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from twinkle_operator import render as rendering
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.observed import Pod, Stack
from twinkle_operator.overrides import overrides
from twinkle_operator.settings import Settings
from twinkle_operator.spec import Spec
from twinkle_operator.validate.documents import FileProblem
from twinkle_operator.validate.files import label, stacks
from twinkle_operator.validate.stack import check_document
from twinkle_operator.validate.structure import with_defaults

RENDERED, REFUSED = 0, 2
NO_UID = "00000000-0000-0000-0000-000000000000"


class _Dumper(yaml.SafeDumper):
    """YAML without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def render(files: Sequence[str], *, only_overrides: bool = False, namespaces: Mapping[str, str] | None = None) -> int:
    """Print the children of every stack in these files, or the overrides of its driver; what is wrong goes to stderr.

    Args:
        files: paths; `-` is standard input.
        namespaces: fields of `Settings`.

    Returns:
        0, or 2 when a file has no stack or one that is refused.
    """
    settings = msgspec.convert(dict(namespaces or {}), Settings)
    code = RENDERED
    for file in files:
        try:
            found = list(_stacks(file))
        except FileProblem as problem:
            print(f"twinkle render: {label(file)}:{problem.line}: {problem}", file=sys.stderr)
            code = REFUSED
            continue
        for stack, spec in found:
            print(_overrides(stack, spec) if only_overrides else _children(stack, spec, settings))
    return code


def _stacks(file: str) -> Iterator[tuple[Stack, Spec]]:
    """FileProblem for a file out of which nothing is made."""
    for document in stacks(file):
        errors = [problem for problem in check_document(document) if problem.severity == "error"]
        if errors:
            raise FileProblem(f"{errors[0].sentence} (twinkle validate says it all)", document.line(errors[0].path))
        yield _stack(with_defaults(stack_schema(), document.value))


def _stack(value: Mapping[str, Any]) -> tuple[Stack, Spec]:
    metadata, spec = value["metadata"], msgspec.convert(value["spec"], Spec)
    stack = Stack(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        uid=metadata.get("uid") or NO_UID,
        generation=1,
        labels=metadata.get("labels") or {},
        spec=spec,
    )
    return stack, spec


def _overrides(stack: Stack, spec: Spec) -> str:
    return "\n".join(overrides(spec, namespace=stack.namespace, name=stack.name, uid=stack.uid))


def _children(stack: Stack, spec: Spec, settings: Settings) -> str:
    head = Pod(name="head", uid=NO_UID, group="head")
    made = (
        rendering.network_policy(stack, spec, settings),
        rendering.cluster(stack, spec),
        rendering.job(stack, spec, 1, head, "{}"),
    )
    comment = "\n".join(f"#   {line}" for line in _overrides(stack, spec).splitlines())
    texts = [yaml.dump(child, Dumper=_Dumper, sort_keys=False, width=10**6) for child in made]
    texts[-1] = f"# The driver's settings:\n{comment}\n{texts[-1]}"
    return "".join(f"---\n{text}" for text in texts).rstrip()
