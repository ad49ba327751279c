"""Callers and their engine: who gets what, and what happens when the engine fails."""

import threading
from collections.abc import Collection, Sequence

import pytest

from twinkle.data_format import SamplingParams
from twinkle.errors import RunError, SampleAbortedError, SamplerError, SampleTimeoutError, TwinkleError
from twinkle.sampler.engine_loop import Call, EngineLoop
from twinkle.sampler.requests import Drawn, Request
from twinkle.sampler.stopping import Endings

DONE = Drawn([1], [-1.0], [-1.0], ended=False)


class Steps:
    """An engine whose steps wait for the test, and end as many requests as it says."""

    def __init__(self) -> None:
        self.inside: list[Request] = []
        self.entered = threading.Semaphore(0)
        self.goes: list[int | Exception] = []
        self.may_go = threading.Semaphore(0)

    @property
    def busy(self) -> bool:
        return bool(self.inside)

    def add(self, requests: Sequence[Request]) -> None:
        self.inside += requests

    def step(self) -> list[tuple[Request, Drawn | TwinkleError]]:
        self.entered.release()
        assert self.may_go.acquire(timeout=20)
        what = self.goes.pop(0) if self.goes else 0
        if isinstance(what, TwinkleError):
            return [(self.inside.pop(0), what)]
        if isinstance(what, Exception):
            raise what
        ended, self.inside = self.inside[:what], self.inside[what:]
        return [(request, DONE) for request in ended]

    def drop(self, requests: Collection[Request]) -> None:
        self.inside = [request for request in self.inside if request not in requests]

    def go(self, what: int | Exception = 0) -> None:
        """Let the step that waits, or the next one, do this."""
        self.goes.append(what)
        self.may_go.release()


def requests(count: int) -> list[Request]:
    params = SamplingParams()
    return [Request((1,), params, Endings.of(params, frozenset(), {}), 0, index) for index in range(count)]


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def loop(steps: Steps) -> EngineLoop:
    return EngineLoop(steps, "engine")


def submit(loop: EngineLoop, count: int, ends: list[str] | None = None, name: str = "") -> Call:
    return loop.submit(requests(count), lambda: (ends if ends is not None else []).append(name))


def test_calls_get_their_own_results_and_are_told_when_they_end(loop: EngineLoop, steps: Steps) -> None:
    ends: list[str] = []
    first, second = submit(loop, 2, ends, "first"), submit(loop, 1, ends, "second")
    steps.go(1)
    steps.go(2)
    found = [loop.next(first, None) for _ in range(3)], [loop.next(second, None) for _ in range(2)]

    assert [[each and each[0].sample_index for each in call] for call in found] == [[0, 1, None], [0, None]]
    assert sorted(ends) == ["first", "second"]


def test_who_waits_for_all_results_is_woken_by_the_last(loop: EngineLoop, steps: Steps) -> None:
    call, found = submit(loop, 3), list[int]()
    caller = threading.Thread(target=lambda: found.extend(r.sample_index for r, _ in loop.results(call, None)))
    caller.start()
    while call.awaited != 3:
        pass
    steps.go(1)
    while len(call.ended) < 1:
        pass

    assert not call.ready
    steps.go(2)
    caller.join(20)
    assert found == [0, 1, 2]


def test_one_failed_request_is_its_callers_alone(loop: EngineLoop, steps: Steps) -> None:
    bad, good = submit(loop, 1), submit(loop, 1)
    steps.go(RunError("not finite"))
    steps.go(1)
    with pytest.raises(RunError, match="not finite"):
        loop.next(bad, None)

    assert loop.next(good, None) is not None


def test_a_step_that_raises_ends_every_call_in_it_and_no_later_one(loop: EngineLoop, steps: Steps) -> None:
    ends: list[str] = []
    calls = [submit(loop, 2, ends, "a"), submit(loop, 1, ends, "b")]
    assert steps.entered.acquire(timeout=20)
    late = submit(loop, 1)
    steps.go(ZeroDivisionError("broken"))
    for call in calls[:1]:
        with pytest.raises(SamplerError, match=r"a step of the engine failed.*ZeroDivisionError: broken"):
            loop.next(call, None)
    steps.go(1)
    steps.go(1)

    assert loop.next(late, None) is not None
    assert "a" in ends


def test_a_deadline_takes_the_call_out_of_the_engine(loop: EngineLoop, steps: Steps) -> None:
    call, other = submit(loop, 2), submit(loop, 1)
    steps.go(1)
    assert loop.next(call, None) is not None
    with pytest.raises(SampleTimeoutError, match="1 of 2 sequences were done"):
        loop.next(call, 0.0)
    steps.go(0)
    steps.go(1)

    assert loop.next(other, None) is not None
    assert steps.inside == []


def test_changes_come_between_steps_and_drained_ones_after_the_calls_before(loop: EngineLoop, steps: Steps) -> None:
    seen: list[tuple[str, int]] = []

    def note(what: str) -> None:
        seen.append((what, len(steps.inside)))

    before = submit(loop, 1)
    assert steps.entered.acquire(timeout=20)
    changes = [
        threading.Thread(target=loop.change, args=(lambda: note("drained"),), kwargs={"drained": True}),
        threading.Thread(target=loop.change, args=(lambda: note("soon"),)),
    ]
    changes[0].start()
    while not loop._queue:
        pass
    after = submit(loop, 1)
    changes[1].start()
    while not loop._changes:
        pass
    steps.go(0)
    steps.go(1)
    assert loop.next(before, None) is not None
    steps.go(1)
    assert loop.next(after, None) is not None
    for change in changes:
        change.join(20)

    assert seen == [("soon", 1), ("drained", 0)]


def test_a_change_that_fails_is_told_where_it_was_asked_for(loop: EngineLoop, steps: Steps) -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        loop.change(fail)
    call = submit(loop, 1)
    assert steps.entered.acquire(timeout=20)
    steps.go(0)
    steps.go(1)
    with pytest.raises(ValueError, match="no such thing"):
        loop.change(fail)

    assert loop.next(call, None) is not None


def test_while_asleep_calls_wait(loop: EngineLoop, steps: Steps) -> None:
    acts: list[str] = []
    loop.sleep(lambda: acts.append("sleep"))
    loop.sleep(lambda: acts.append("sleep again"))
    call = submit(loop, 1)
    with pytest.raises(SampleTimeoutError):
        loop.next(call, 0.0)
    call = submit(loop, 1)
    loop.wake(lambda: acts.append("wake"))
    loop.wake(lambda: acts.append("wake again"))
    steps.go(1)

    assert loop.next(call, None) is not None
    assert acts == ["sleep", "wake"]


def test_closing_ends_the_thread_and_its_calls(loop: EngineLoop, steps: Steps) -> None:
    call = submit(loop, 1)
    assert steps.entered.acquire(timeout=20)
    thread = loop._thread
    steps.go(0)
    steps.go(0)
    loop.close()

    assert thread is not None
    assert not thread.is_alive()
    with pytest.raises(SampleAbortedError, match="was closed when 0 of 1"):
        loop.next(call, None)
    with pytest.raises(SampleAbortedError, match="is closed"):
        submit(loop, 1)
    loop.close()


def test_an_idle_thread_ends_and_comes_again(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinkle.sampler.engine_loop.IDLE_S", 0.01)
    loop = EngineLoop(steps, "engine")
    for _ in range(2):
        call = submit(loop, 1)
        thread = loop._thread
        steps.go(1)

        assert loop.next(call, None) is not None
        assert thread is not None
        thread.join(20)
        assert loop._thread is None
