"""run.resume_from: a new run begins with another's newest checkpoint, and ends as if it had been one run."""

from pathlib import Path

import pytest

from tests.runs import configured, trained
from tests.twinkle.loop.test_sync import weights
from twinkle.errors import ConfigError
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import checkpoints_in, read_json

SHORT = ["data.held_out_prompts=4", "loop.checkpoint_every=2"]
NOT_COMPARED = ("seconds", "tokens_per_s", "version")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    return trained(tmp_path_factory.mktemp("origin"), *SHORT, "loop.steps=4")


def figures(run: Path) -> list[dict[str, object]]:
    rows = read_rows(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.endswith(NOT_COMPARED)} for row in rows]


def test_a_run_that_begins_with_anothers_checkpoint_ends_as_one_that_did_it_all(
    tmp_path: Path, origin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(tmp_path / "whole", *SHORT, "loop.steps=6")
    run = trained(tmp_path / "rest", *SHORT, "loop.steps=6", f"run.resume_from={origin}", "run.name=rest")

    assert f"Continuing from step 4 of 6, with the newest checkpoint of {origin}." in capsys.readouterr().out
    assert weights(run) == weights(whole)
    assert figures(run) == figures(whole)[4:]
    assert [row["version"] for row in read_rows(run / "metrics.jsonl")] == ["0.5", "0.6"]
    assert [row["step"] for row in read_rows(run / "evals.jsonl")] == [4, 6]
    assert read_json(run / "run.json")["resumed_from"] == str(origin / "checkpoints" / "step-000004")
    assert (run / "report.html").exists()


def test_an_attempt_that_died_before_its_first_step_begins_there_again(tmp_path: Path, origin: Path) -> None:
    there = [f"run.folder={tmp_path / 'run'}", "run.resume=auto", f"run.resume_from={origin}", "loop.steps=6", *SHORT]
    config, _ = configured(*there)
    from twinkle.loop.exact_folder import open_folder

    open_folder(tmp_path / "run", "auto", config.identity()).close()  # it died before it had copied anything
    trained(tmp_path, *there)

    assert [row["version"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == ["1.5", "1.6"]
    assert not (tmp_path / "latest").exists()
    trained(tmp_path, *there)  # finished: nothing is left to do
    assert read_json(tmp_path / "run" / "run.json")["lineage"] == 1


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["optim.lr=1e-4", "loop.steps=6"], r"trained with other settings: optim\.lr was"),
        (["loop.steps=4"], "has 4 steps behind it: set loop.steps above that"),
        (["loop.steps=6", "run.resume_from={root}"], "is no run folder"),
        (["loop.steps=6", "run.resume=auto"], r"leave run\.resume=off, or name the new run's folder"),
    ],
)
def test_an_origin_that_does_not_fit_is_refused_and_leaves_no_run(
    tmp_path: Path, origin: Path, overrides: list[str], match: str
) -> None:
    named = [override.format(root=tmp_path) for override in overrides]
    with pytest.raises(ConfigError, match=match):
        trained(tmp_path / "runs", *SHORT, f"run.resume_from={origin}", *named)
    assert not (tmp_path / "runs").exists()


def test_an_origin_without_a_checkpoint_is_refused(tmp_path: Path, origin: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "run.json").write_text((origin / "run.json").read_text())

    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        trained(tmp_path / "runs", *SHORT, "loop.steps=6", f"run.resume_from={bare}")
    assert not checkpoints_in(bare)


def test_ranks_may_change_between_two_attempts(tmp_path: Path, origin: Path) -> None:
    whole = trained(tmp_path / "whole", *SHORT, "loop.steps=6")
    there = [*SHORT, f"run.folder={tmp_path / 'run'}", "run.resume=auto", "infra.threads=1"]
    trained(tmp_path, *there, "loop.steps=4")
    trained(tmp_path, *there, "loop.steps=6", "mesh.trainer_dp=2")

    for ours, theirs in zip(figures(tmp_path / "run"), figures(whole), strict=True):
        for name in ("loss", "grad_norm", "reward_mean"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6)
