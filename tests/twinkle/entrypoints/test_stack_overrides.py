"""A stack's overrides, as twinkle-train would take them."""

import pytest

from tests.kube.specs import FREE
from twinkle.entrypoints.stack_overrides import refused


def said(experiment: str, *overrides: str) -> list[tuple[str, str, str]]:
    return [(problem.where, problem.severity, problem.message) for problem in refused(experiment, overrides)]


def test_what_can_be_composed_is_fine() -> None:
    assert said("quickstart") == []
    assert said("even_digits", *FREE) == []


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lop.steps=50", "There is no setting 'lop.steps'; did you mean loop.steps?"),
        ("+loop.speed=1", "There is no setting 'loop.speed'"),
        ("loop.steps=many", "loop.steps='many': give a whole number."),
        ("algo=gpro", "algo=gpro does not exist; algo has: dr_grpo, grpo, rloo."),
        ("loop.steps=[1", "The override 'loop.steps=[1' cannot be read: write key=value"),
        ("run.seed=1,2", "Ambiguous value"),
    ],
)
def test_what_cannot_is_named_by_its_place(override: str, sentence: str) -> None:
    (problem,) = said("quickstart", "loop.steps=50", override)

    assert problem[:2] == ("spec.run.overrides[1]", "error")
    assert sentence in problem[2]


def test_two_that_fail_only_together_are_told_as_the_list() -> None:
    (problem,) = said("quickstart", "~eval", "eval.every=3")

    assert problem[:2] == ("spec.run.overrides", "error")


def test_an_experiment_of_the_image_is_a_warning_and_its_overrides_are_not_looked_at() -> None:
    assert said("quickstrat", "lop.steps=50") == [
        (
            "spec.run.experiment",
            "warning",
            "'quickstrat' is no experiment of this package: the image must bring it; did you mean quickstart?",
        )
    ]
