"""`twinkle validate` as a person runs it: what it prints and how it ends."""

import io
from pathlib import Path

import pytest

from tests.kube.cases import HERE, base
from twinkle_operator.commands.validate import INVALID, VALID, validate

VALID_STACK = (HERE / "base.yaml").read_text("utf-8")
OTHER = "apiVersion: v1\nkind: Namespace\nmetadata: {name: rl}\n---\n"


def run(capsys: pytest.CaptureFixture[str], *files: Path, before: Path | None = None) -> tuple[int, list[str]]:
    code = validate(list(map(str, files)), None if before is None else str(before))
    return code, capsys.readouterr().out.replace(f"{files[0].parent}/", "").splitlines()


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert VALID_STACK.count(old) == 1
    return VALID_STACK.replace(old, new)


def test_valid_stacks_and_other_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = written(tmp_path / "one.yaml", VALID_STACK)
    two = written(tmp_path / "two.yaml", OTHER + VALID_STACK + "---\n" + VALID_STACK.replace("name: base", "name: b"))

    assert run(capsys, one) == (VALID, ["1 TrainingStack valid."])
    assert run(capsys, one, two) == (VALID, ["3 TrainingStacks valid."])


def test_file_line_and_sentence_in_the_order_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = OTHER + changed("mesh: {dp: 2}", "mesh: {dp: 3}").replace("numNSamples", "numNSample")
    code, lines = run(capsys, written(tmp_path / "a.yaml", text))

    assert code == INVALID
    batch, field = lines
    assert batch.startswith(
        "a.yaml:14: error: spec.controller.globalBatchSize: globalBatchSize (prompts) must be a mult"
    )
    assert field == "a.yaml:14: error: spec.controller.numNSample: unknown field; did you mean numNSamples?"


def test_warnings_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = written(tmp_path / "a.yaml", changed("  image:", "  serviceAccountName: robot\n  image:"))

    code, (warning, verdict) = run(capsys, stack)

    assert (code, verdict) == (VALID, "1 TrainingStack valid.")
    assert warning.startswith("a.yaml:7: warning: spec.serviceAccountName: every program in these pods may act as")


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(changed("name: base", "name: 1base").encode())))

    assert validate(["-"]) == INVALID
    assert capsys.readouterr().out.startswith('<stdin>:5: error: metadata.name: "1base" is no name of a stack')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "1: error: no TrainingStack in it (apiVersion: twinkle.dev/v1alpha1)"),
        (OTHER, "1: error: no TrainingStack in it (apiVersion: twinkle.dev/v1alpha1)"),
        ("a: [\n", "2: error: no YAML: expected the node content, but found '<stream end>'"),
        ("kind: TrainingStack\napiVersion: twinkle.dev/v1\n",
         "2: error: apiVersion: is 'twinkle.dev/v1', must be 'twinkle.dev/v1alpha1'"),
        ("apiVersion: twinkle.dev/v1alpha1\nkind: TrainigStack\n",
         "2: error: kind: is 'TrainigStack', must be 'TrainingStack'"),
    ],
)  # fmt: skip
def test_files_without_a_stack(text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, written(tmp_path / "a.yaml", text)) == (INVALID, [f"a.yaml:{sentence}"])


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    assert run(capsys, tmp_path / "missing") == (
        INVALID,
        ["missing:1: error: cannot be read: No such file or directory"],
    )
    assert run(capsys, tmp_path / "binary") == (INVALID, ["binary:1: error: no text in UTF-8"])


def test_a_key_that_stands_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = written(tmp_path / "a.yaml", changed("  image:", "  image: other\n  image:"))

    assert run(capsys, stack) == (
        INVALID,
        ["a.yaml:8: error: spec.image: stands here twice; YAML takes the last"],
    )


def test_a_stack_that_stands_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = changed("name: base", "name: base\n  namespace: rl")
    twice = "---\n".join([VALID_STACK, elsewhere, VALID_STACK])

    code, lines = run(capsys, written(tmp_path / "a.yaml", twice))

    at = [number for number, line in enumerate(twice.splitlines(), 1) if line.startswith("  name: base")]
    sentence = f"metadata.name: this stack stands in line {at[0]} already; kubectl takes the last"
    assert (code, lines) == (INVALID, [f"a.yaml:{at[2]}: error: {sentence}"])


def test_an_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = written(tmp_path / "old.yaml", VALID_STACK)
    new = written(tmp_path / "new.yaml", changed("backend: ray", "backend: memory"))
    other = written(tmp_path / "other.yaml", changed("name: base", "name: other"))

    assert run(capsys, new)[0] == VALID
    code, (refused,) = run(capsys, new, before=old)
    assert code == INVALID
    assert refused.startswith("new.yaml:11: error: spec.storage.backend: storage.backend cannot change, for the queue")
    assert run(capsys, old, before=old)[0] == VALID
    assert run(capsys, other, before=old) == (
        INVALID,
        ["other.yaml:5: error: metadata.name: no stack of this name is in the file of --from"],
    )
    assert run(capsys, new, before=tmp_path / "missing")[0] == INVALID


def test_the_base_that_these_tests_change_is_the_one_of_the_cases() -> None:
    assert base()["metadata"]["name"] == "base"
