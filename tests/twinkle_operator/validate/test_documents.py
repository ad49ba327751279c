"""YAML with line numbers."""

import pytest

from twinkle_operator.validate.documents import FileProblem, documents

TEXT = """\
# a comment
spec:
  groups:
  - name: a
    mesh: {dp: 2,
           tp: 3}
  - &b
    name: b
  - <<: *b
    when: 2026-01-01
---
second: true
1: one
"""


def test_lines_of_fields_and_items() -> None:
    first, second = documents(TEXT)

    assert first.value == {
        "spec": {
            "groups": [
                {"name": "a", "mesh": {"dp": 2, "tp": 3}},
                {"name": "b"},
                {"name": "b", "when": "2026-01-01"},
            ]
        }
    }
    assert first.line(("spec", "groups", 0, "mesh", "tp")) == 6
    assert first.line(("spec", "groups", 1)) == 7
    assert first.line(("spec", "groups", 2, "name")) == 8  # where it is written
    assert first.line(("spec", "groups", 2, "when")) == 10
    assert second.value == {"second": True, "1": "one"}
    assert second.line(("second",)) == 12


def test_what_is_not_there_has_the_line_of_what_should_hold_it() -> None:
    first = next(documents(TEXT))

    assert first.line(("spec", "groups", 0, "mesh", "pp", "deeper")) == 5
    assert first.line(("status",)) == 2


def test_keys_that_stand_twice() -> None:
    (document,) = documents("a: 1\nb: {c: 1, c: 2}\na: 2\n")

    assert document.value == {"a": 2, "b": {"c": 2}}
    assert document.twice == [("b", "c"), ("a",)]
    (merged,) = documents("x: &x {a: 1}\ny: {<<: *x, a: 2}\n")
    assert merged.twice == []


def test_an_empty_file_has_no_documents_and_an_empty_document_no_value() -> None:
    assert list(documents("")) == []
    assert [document.value for document in documents("---\n---\na: 1\n")] == [None, {"a": 1}]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "no YAML"),
        ("a: b: c\n", 1, "no YAML"),
        ("a: 1\n\tb: 2\n", 2, "no YAML"),
        ("a: &a\n  b: *a\n", 1, "an anchor that holds itself"),
        ("a: !!python/object:x 1\n", 1, "no YAML"),
        ("a: \x01\n", 1, "no YAML"),
    ],
)
def test_what_is_no_yaml(text: str, line: int, what: str) -> None:
    with pytest.raises(FileProblem, match=what) as raised:
        list(documents(text))

    assert raised.value.line == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: !!int many\n", 2),
        ("a: 1\nb: " + "9" * 5000, 2),
        ("[" * 3000, 1),
        ("a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9)), 1),
    ],
)
def test_what_would_end_python_or_never_end_is_no_yaml(text: str, line: int) -> None:
    with pytest.raises(FileProblem, match="no YAML") as caught:
        list(documents(text))

    assert caught.value.line == line
