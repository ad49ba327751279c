"""The command that makes the committed files, and says when they are stale."""

from pathlib import Path

import pytest
import yaml

from twinkle_operator.crd import definition
from twinkle_operator.crd.__main__ import CRD, MOST_BYTES, REFERENCE, main


def test_the_committed_files_are_what_the_types_make() -> None:
    assert main(["--check"]) == 0


def test_it_writes_them_and_says_which_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", f"--root={tmp_path}"]) == 1
    assert main(["--write", f"--root={tmp_path}"]) == 0
    assert main(["--check", f"--root={tmp_path}"]) == 0
    capsys.readouterr()
    (tmp_path / REFERENCE).write_text("by hand")

    assert main(["--check", f"--root={tmp_path}"]) == 1
    assert capsys.readouterr().err == f"{REFERENCE} is stale: run `python -m twinkle_operator.crd --write`.\n"


def test_the_file_is_the_definition_without_anchors_and_small(tmp_path: Path) -> None:
    main(["--write", f"--root={tmp_path}"])
    text = (tmp_path / CRD).read_text("utf-8")

    assert yaml.safe_load(text) == definition()
    assert "&id" not in text
    assert len(text.encode()) < MOST_BYTES


def test_the_page_names_every_part_and_the_sentences(tmp_path: Path) -> None:
    main(["--write", f"--root={tmp_path}"])
    page = (tmp_path / REFERENCE).read_text("utf-8")

    for heading in (
        "spec",
        "spec.deviceGroups[]",
        "spec.deviceGroups[].mesh",
        "spec.run.volume",
        "status.conditions[]",
    ):
        assert f"\n## {heading}\n" in page
    assert "| `globalBatchSize` | integer 1..1048576 | `8` | Prompts of one step." in page
    assert "- storage.backend cannot change" in page.replace("`backend` ", "")
    assert "decided by controller.globalBatchSize" in page
