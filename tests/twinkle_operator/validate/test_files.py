"""What a file is that holds no stack: the same sentence in every command that reads one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.kube.cases import HERE
from twinkle.entrypoints.stack_file import Here, expanded
from twinkle.errors import ConfigError
from twinkle_operator.commands.render import render
from twinkle_operator.commands.validate import validate
from twinkle_operator.validate.documents import FileProblem
from twinkle_operator.validate.files import MOST_BYTES, stacks

STACK = (HERE / "base.yaml").read_bytes()
NONE = "no TrainingStack in it (apiVersion: twinkle.dev/v1alpha1)"
UNNAMED = STACK.replace(b"name: base", b"labels: {}")
AFTER = STACK.count(b"\n") + 1
DEEP = b"a: " + b"[" * 110 + b"]" * 110


def said(capsys: pytest.CaptureFixture[str], file: Path) -> tuple[str, str, str]:
    """By validate, render and twinkle-train, without their own beginnings and ends."""
    assert validate([str(file)]) == 2
    validated = capsys.readouterr().out
    assert render([str(file)]) == 2
    rendered = capsys.readouterr().err
    with pytest.raises(ConfigError) as trained:
        expanded([f"stack={file}"], Here(2, 0, True))
    return (
        validated.removeprefix(f"{file}:").replace(" error:", "").strip(),
        rendered.removeprefix(f"twinkle render: {file}:").replace(" (twinkle validate says it all)", "").strip(),
        str(trained.value).removeprefix("stack=").removeprefix(f"{file}:").removesuffix("."),
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "1: cannot be read: No such file or directory"),
        ("a folder", "1: cannot be read: Is a directory"),
        (b"", f"1: {NONE}"),
        (b"# nothing\n---\n", f"1: {NONE}"),
        (b"apiVersion: v1\nkind: Pod\n", f"1: {NONE}"),
        (b"- a\n- b\n", f"1: {NONE}"),
        (b"a: 1\nb: [1, 2\nc: 3\n", "3: no YAML: expected ',' or ']', but got ':'"),
        (b"a: 1\nb: \xff\n", "2: no text in UTF-8"),
        (b"a: 1\nb: x\0\n", "2: no YAML: character #x0000 is not allowed"),
        (b"a: 1\nb: !!bool maybe\n", "2: no YAML: 'maybe' is no bool"),
        (b"a: !!int ''\n", "1: no YAML: '' is no int"),
        (b"a: !!timestamp soon\n", "1: no YAML: 'soon' is no timestamp"),
        (b"a: " + b"9" * 30, f"1: no YAML for Kubernetes: '{'9' * 30}' has no form in JSON; quote it"),
        (b"a: .nan\n", "1: no YAML for Kubernetes: '.nan' has no form in JSON; quote it"),
        (b"a: !!binary aGk=\n", "1: no YAML for Kubernetes: 'aGk=' has no form in JSON; quote it"),
        (b'a: "\\ud800"\n', "1: no YAML for Kubernetes: '\\ud800' has no form in JSON; quote it"),
        (b"? [a]\n: 1\n", "1: no YAML for Kubernetes: a key that is no text"),
        (DEEP, "1: no YAML for Kubernetes: nested too deeply"),
        (b"#" * (MOST_BYTES + 1), f"1: larger than {MOST_BYTES} bytes: no file of stacks is"),
        (STACK.replace(b"v1alpha1", b"v9"), "2: apiVersion: is 'twinkle.dev/v9', must be 'twinkle.dev/v1alpha1'"),
        (STACK.replace(b"kind: TrainingStack", b"kind: [x]"), "3: kind: is ['x'], must be 'TrainingStack'"),
        (STACK + b"kind: TrainingStack\n", f"{AFTER}: kind: stands here twice; YAML takes the last"),
        (UNNAMED, "4: metadata.name: Required value. Everything of the stack is named from it"),
        (STACK + b'  "a\\e[31m": 1\n', f"{AFTER}: spec.a [31m: unknown field"),
    ],
)  # fmt: skip
def test_every_command_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None, sentence: str
) -> None:
    file = tmp_path / "stack.yaml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()

    assert said(capsys, file) == (sentence,) * 3


def test_a_name_that_no_file_system_takes_is_a_sentence() -> None:
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(FileProblem, match="cannot be read: "):
            stacks(name)


def test_of_several_stacks_one_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stacks.yaml"
    for texts, named, sentence in (
        ((STACK, STACK.replace(b"name: base", b"name: b")), "", "holds 2 stacks, b, base: choose one, stack="),
        ((UNNAMED, UNNAMED), "", r"holds 2 stacks, \(no name\), \(no name\): choose one, stack="),
        ((STACK, STACK), "", "holds 2 stacks, base, base: choose one, stack="),
        ((STACK, STACK), ":base", "holds 2 stacks, base, base: one name may stand once"),
    ):
        file.write_bytes(b"---\n".join(texts))
        with pytest.raises(ConfigError, match=sentence):
            expanded([f"stack={file}{named}"], Here(2, 0, True))


def test_null_is_as_left_out_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stack.yaml"
    file.write_bytes(STACK + b"  head: null\n  networkPolicy: ~\n")

    assert (validate([str(file)]), render([str(file)])) == (0, 0)
    assert expanded([f"stack={file}"], Here(2, 0, True)) is not None


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(STACK)))

    assert [each.value["metadata"]["name"] for each in stacks("-")] == ["base"]
