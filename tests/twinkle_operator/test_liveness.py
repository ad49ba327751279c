"""When the operator counts as deaf."""

from __future__ import annotations

from twinkle_operator.liveness import Beats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_watch_has_to_bring_something() -> None:
    clock = Clock()
    beats = Beats(clock, within=10)
    beats.expect({"/pods", "/stacks"})
    clock.now = 9
    beats.beat("/pods")
    assert beats.hindrance() == ""

    clock.now = 11
    assert beats.hindrance() == "nothing came of /stacks for 11 s"
    beats.beat("/stacks")
    assert beats.hindrance() == ""


def test_what_is_not_watched_says_nothing() -> None:
    clock = Clock()
    beats = Beats(clock, within=10)
    beats.expect({"/pods", "/jobs"})
    beats.expect({"/pods"})
    clock.now = 11
    beats.beat("/jobs")
    beats.beat("/version")
    beats.beat("/pods")

    assert beats.hindrance() == ""


def test_beginning_anew_does_not_make_a_silent_watch_live() -> None:
    clock = Clock()
    beats = Beats(clock, within=10)
    beats.expect({"/pods"})
    clock.now = 8
    beats.expect({"/pods"})
    clock.now = 11

    assert beats.hindrance()


def test_an_operator_that_never_gets_to_watch_is_not_alive_for_ever() -> None:
    clock = Clock()
    beats = Beats(clock, within=10)
    assert beats.hindrance() == ""

    clock.now = 11
    assert beats.hindrance()
