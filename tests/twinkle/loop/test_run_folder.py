import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from twinkle.errors import ConfigError, RunError
from twinkle.loop.run_folder import RunIdentity, discard, find_run, new_run, read_json, write_json

IDENTITY = RunIdentity(name="toy", settings={"optim.lr": 0.1}, steps=10)


def finish(path: Path) -> None:
    write_json(path / "result.json", {"steps": 10})


def test_latest_points_at_the_newest_run(tmp_path: Path) -> None:
    new_run(tmp_path, IDENTITY).close()
    newest = new_run(tmp_path, IDENTITY)

    assert (tmp_path / "latest").resolve() == newest.path


def test_two_runs_of_the_same_second_get_two_folders(tmp_path: Path) -> None:
    folders = {new_run(tmp_path, IDENTITY).path for _ in range(3)}

    assert len(folders) == 3


def test_off_never_continues(tmp_path: Path) -> None:
    new_run(tmp_path, IDENTITY).close()

    assert find_run(tmp_path, "off", IDENTITY) is None


def test_auto_continues_the_newest_unfinished_run_of_the_same_identity(tmp_path: Path) -> None:
    older = new_run(tmp_path, IDENTITY)
    older.close()
    new_run(tmp_path, replace(IDENTITY, settings={"optim.lr": 0.2})).close()
    finished = new_run(tmp_path, IDENTITY)
    finish(finished.path)
    finished.close()

    found = find_run(tmp_path, "auto", IDENTITY)

    assert found is not None
    assert (found.path, found.lineage, found.resumed) == (older.path, 1, True)


def test_auto_passes_over_a_run_that_a_process_holds(tmp_path: Path) -> None:
    held = new_run(tmp_path, IDENTITY)

    assert find_run(tmp_path, "auto", IDENTITY) is None
    held.close()
    assert find_run(tmp_path, "auto", IDENTITY) is not None


def test_auto_starts_anew_where_there_is_no_folder_at_all(tmp_path: Path) -> None:
    assert find_run(tmp_path / "nothing", "auto", IDENTITY) is None


def test_every_resume_opens_a_lineage(tmp_path: Path) -> None:
    new_run(tmp_path, IDENTITY).close()
    lineages = []
    for _ in range(3):
        run = find_run(tmp_path, "auto", IDENTITY)
        assert run is not None
        lineages.append(run.lineage)
        run.close()

    assert lineages == [1, 2, 3]


def test_a_named_folder_is_continued_with_more_steps(tmp_path: Path) -> None:
    run = new_run(tmp_path, IDENTITY)
    finish(run.path)
    run.close()

    found = find_run(tmp_path, str(run.path), replace(IDENTITY, steps=20))

    assert found is not None
    assert not found.finished
    assert read_json(found / "run.json")["steps"] == 20


@pytest.mark.parametrize(
    ("identity", "sentence"),
    [(IDENTITY, "is finished"), (replace(IDENTITY, settings={"optim.lr": 0.2}), r"optim\.lr was 0\.1, now it is 0\.2")],
)
def test_a_named_folder_that_cannot_continue_is_refused(tmp_path: Path, identity: RunIdentity, sentence: str) -> None:
    run = new_run(tmp_path, IDENTITY)
    finish(run.path)
    run.close()

    with pytest.raises(ConfigError, match=sentence):
        find_run(tmp_path, str(run.path), identity)


def test_a_folder_in_use_and_a_folder_that_is_no_run_are_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path, IDENTITY)

    with pytest.raises(RunError, match="in use by another process"):
        find_run(tmp_path, str(run.path), IDENTITY)
    with pytest.raises(ConfigError, match="is no run folder"):
        find_run(tmp_path, str(tmp_path), IDENTITY)


def test_an_unwritable_root_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"run\.root="):
        new_run(tmp_path / "file" / "runs", IDENTITY)


def test_a_file_as_root_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"run\.root='.*file' is a file: choose a folder"):
        new_run(tmp_path / "file", IDENTITY)


def test_a_run_named_without_its_root_is_found_for_the_sentence(tmp_path: Path) -> None:
    new_run(tmp_path, IDENTITY).close()

    with pytest.raises(
        ConfigError, match=rf"run\.resume='latest' is no run folder .*; did you mean {tmp_path}/latest\?"
    ):
        find_run(tmp_path, "latest", IDENTITY)


def test_a_document_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})

    assert json.loads(path.read_text()) == {"a": 2}
    assert [child.name for child in tmp_path.iterdir()] == ["a.json"]


def test_a_torn_document_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")

    with pytest.raises(RunError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_volume_as_root_does_not_hide_why_a_run_never_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(Path, "rmdir", busy)  # what a mounted folder answers
    discard(new_run(tmp_path, IDENTITY))

    assert list(tmp_path.iterdir()) == []
