"""run.folder: one folder, attempt after attempt."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinkle.errors import TRY_AGAIN, ConfigError, RunInUseError
from twinkle.loop.exact_folder import open_folder
from twinkle.loop.run_folder import RunFolder, RunIdentity, discard, write_json

IDENTITY = RunIdentity(name="toy", settings={"optim.lr": 0.1}, steps=10)


def opened(path: Path, resume: str = "auto", identity: RunIdentity = IDENTITY) -> RunFolder:
    return open_folder(path, resume, identity, in_use_s=0.1)


def test_it_begins_in_that_very_folder_and_each_attempt_continues_it(tmp_path: Path) -> None:
    lineages = []
    for _ in range(3):
        run = opened(tmp_path / "stacks" / "mine")
        assert (run.path, run.resumed) == (tmp_path / "stacks" / "mine", bool(lineages))
        lineages.append(run.lineage)
        run.close()

    assert lineages == [0, 1, 2]
    assert [each.name for each in (tmp_path / "stacks").iterdir()] == ["mine"]  # nothing called latest


def test_one_that_is_finished_stays_so_until_more_steps_are_asked_for(tmp_path: Path) -> None:
    run = opened(tmp_path)
    write_json(run / "result.json", {"steps": 10})
    run.close()
    run = opened(tmp_path)
    assert (run.finished, run.lineage, run.finished_steps) == (True, 0, None)
    run.close()

    run = opened(tmp_path, identity=replace(IDENTITY, steps=20))
    assert (run.finished, run.lineage, run.finished_steps) == (False, 1, 10)


def test_off_begins_and_never_continues(tmp_path: Path) -> None:
    opened(tmp_path, "off").close()

    with pytest.raises(ConfigError, match=r"holds a run already: run\.resume=auto continues it"):
        opened(tmp_path, "off")


def test_a_run_of_other_settings_and_a_folder_of_other_things_are_refused(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    with pytest.raises(ConfigError, match=r"run\.folder=.*other settings: optim\.lr was 0\.1, now it is 0\.2"):
        opened(tmp_path / "run", identity=replace(IDENTITY, settings={"optim.lr": 0.2}))
    with pytest.raises(ConfigError, match="holds run and no run: name a folder of its own"):
        opened(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.folder=.* cannot be written"):
        opened(tmp_path / "file" / "run")


def test_one_that_a_process_holds_is_waited_for_and_then_worth_another_try(tmp_path: Path) -> None:
    held = opened(tmp_path)
    with pytest.raises(RunInUseError, match="in use by another process") as error:
        opened(tmp_path)

    assert error.value.exit_code == TRY_AGAIN
    held.close()
    opened(tmp_path).close()


def test_a_run_that_never_began_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    run = opened(tmp_path)
    (run / "config.yaml").write_text("")
    (run / "model").mkdir()
    discard(run)
    run.close()

    assert [each.name for each in tmp_path.iterdir()] == [".lock"]
    assert not opened(tmp_path).resumed
