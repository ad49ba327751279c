"""Rows that go on without an output of their own, beside the same rows with vLLM's own scheduler."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.twinkle.sampler.vllm.conftest import imported


@pytest.fixture(scope="module")
def stepping() -> Any:
    """The module ``stepping``."""
    return imported("stepping")


@pytest.fixture(scope="module")
def scheduler(stepping: Any, opt_folder: Path) -> Callable[[], Any]:
    """Makes one."""
    with warnings.catch_warnings(action="ignore"):
        made: Callable[[], Any] = stepping.made(opt_folder)
    return made


def token_of(name: str, length: int) -> int:
    """Differs from row to row and from place to place; now and then the one that ends a response."""
    return (7 * int(name) + 5 * length) % 67


def test_vllm_makes_outputs_of_rows_that_end_only(stepping: Any, scheduler: Callable[[], Any]) -> None:
    stepped = stepping.Stepped(scheduler(), shortened=True)
    for name, most in (("1", 3), ("2", 6)):
        stepped.begin(name, [5, 6, 7], most)
    while stepped.scheduler.has_requests():
        stepped.step(lambda name, _: int(name) + 10)

    assert stepped.outputs == 2
    assert stepped.drawn == {"1": [(11, -11.0)] * 3, "2": [(12, -12.0)] * 6}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    work=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5)), min_size=1, max_size=6),
    aborted=st.dictionaries(st.integers(0, 30), st.integers(0, 5), max_size=3),
)
def test_rows_and_scheduler_are_what_they_are_with_vllm(
    stepping: Any, scheduler: Callable[[], Any], work: list[tuple[int, int, int]], aborted: dict[int, int]
) -> None:
    """Rows begin and are aborted at some step; the cache is too small for all, so that some are preempted."""
    both = [stepping.Stepped(scheduler(), shortened=shortened) for shortened in (False, True)]
    for step in range(400):
        for each in both:
            for name, (length, most, begins) in enumerate(work):
                if begins == step:
                    each.begin(str(name), list(range(length)), most)
            if step in aborted and str(aborted[step]) in each.scheduler.requests:
                each.scheduler.finish_requests(str(aborted[step]), stepping.ABORTED)
            each.step(token_of)
        assert both[0].state() == both[1].state()
        if step > 5 and not both[0].scheduler.has_requests():
            break
    else:
        raise AssertionError(both[0].state())

    assert both[0].drawn == both[1].drawn
    assert both[0].ended == both[1].ended


def test_a_scheduler_of_another_kind_is_left_alone(stepping: Any, scheduler: Callable[[], Any]) -> None:
    class Other(stepping.Scheduler):  # type: ignore[misc,name-defined]
        pass

    other = scheduler()
    other.__class__ = Other
    usual = other.update_from_output
    stepping.take_ongoing(other, lambda *_: None)

    assert other.update_from_output == usual
