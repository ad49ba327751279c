"""What is said before a run's first step."""

import pytest

from tests.runs import configured
from twinkle.loop.plan import beginning


@pytest.mark.parametrize(
    ("overrides", "step", "resumed", "finished", "said"),
    [
        (["run.resume=auto"], 156, True, None, "Continuing from step 156 of 500."),
        (["run.resume=auto"], 0, True, None, "Nothing to continue from: this run has no checkpoint yet."),
        (["run.resume=auto"], 0, False, None, "Nothing to continue: no unfinished run has these settings."),
        (["run.resume=auto", "run.folder=f"], 0, False, None, "Nothing to continue: the folder holds no run yet."),
        (["run.resume=runs/f"], 7, True, 7, "This run was finished after 7 steps; it goes on to 500 (loop.steps=500)."),
        (["run.resume_from=f"], 7, False, None, "Continuing from step 7 of 500, with the newest checkpoint of f."),
        ([], 7, True, None, "Continuing from step 7 of 500."),
    ],
)  # fmt: skip
def test_a_run_says_where_it_goes_on(
    overrides: list[str], step: int, resumed: bool, finished: int | None, said: str
) -> None:
    config, _ = configured("loop.steps=500", *overrides)

    assert beginning(config, step=step, resumed=resumed, finished_steps=finished).startswith(said)


def test_a_new_run_says_nothing_of_that() -> None:
    assert beginning(configured()[0], step=0, resumed=False, finished_steps=None) == ""
