"""The queue of keys: nothing lost, nothing twice at a time, no failure retried early, whatever the order of things."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinkle_operator.work_queue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock, **settings: float) -> WorkQueue[str]:
    return WorkQueue(clock, jitter=lambda: 0.0, **settings)


def test_a_key_that_is_added_twice_comes_once() -> None:
    work = queue(Clock())
    work.add("a")
    work.add("a")

    assert [work.take(), work.take()] == ["a", None]


def test_a_key_that_is_added_while_a_worker_has_it_comes_again_when_that_worker_is_done() -> None:
    work = queue(Clock())
    work.add("a")
    work.take()
    work.add("a")

    assert work.take() is None
    work.done("a")
    assert work.take() == "a"


def test_keys_come_in_the_order_in_which_they_fell_due() -> None:
    clock = Clock()
    work = queue(clock)
    work.add("late", delay=2)
    work.add("early", delay=1)
    work.add("now")
    clock.now += 3

    assert [work.take() for _ in range(3)] == ["now", "early", "late"]


def test_a_failed_key_waits_twice_as_long_each_time_up_to_a_bound() -> None:
    clock = Clock()
    work = queue(clock, first=1.0, most=5.0)
    work.add("a")
    delays = []
    for _ in range(5):
        assert work.take() == "a"
        delays.append(work.failed("a"))
        clock.now += delays[-1]

    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_news_do_not_cut_a_backoff_short() -> None:
    clock = Clock()
    work = queue(clock, first=4.0)
    work.add("a")
    work.take()
    work.failed("a")
    work.add("a")

    assert work.take() is None
    assert work.wait() == 4.0


def test_success_forgets_failures() -> None:
    clock = Clock()
    work = queue(clock, first=1.0)
    work.add("a")
    for _ in range(3):
        work.take()
        clock.now += work.failed("a")
    work.take()
    work.done("a")
    work.add("a")

    assert work.take() == "a"
    assert work.failed("a") == 1.0


def test_a_server_that_names_a_time_is_not_asked_before_it() -> None:
    work = queue(Clock(), first=1.0)
    work.add("a")
    work.take()

    assert work.failed("a", at_least=7.0) == 7.0
    assert work.wait() == 7.0


def test_an_earlier_time_wins_over_a_later_one() -> None:
    clock = Clock()
    work = queue(clock)
    work.add("a")
    work.take()
    work.done("a", again=600.0)
    work.add("a", delay=1.0)

    assert work.wait() == 1.0


def test_a_forgotten_key_does_not_come() -> None:
    work = queue(Clock())
    work.add("a")
    work.forget("a")

    assert work.take() is None
    assert work.wait() is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "done", "failed", "pass"]),
        st.sampled_from("abc"),
        st.floats(0, 10, allow_nan=False),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_is_added_is_taken_after_it_and_never_twice_at_a_time(steps: list[tuple[str, str, float]]) -> None:
    clock = Clock()
    work = queue(clock, first=0.5, most=20.0)
    held: set[str] = set()
    owed: set[str] = set()
    not_before: dict[str, float] = {}
    for what, key, number in steps:
        if what == "add":
            work.add(key, delay=number)
            owed.add(key)
        elif what == "take":
            taken = work.take()
            if taken is not None:
                assert taken not in held
                assert clock.now >= not_before.get(taken, 0.0)
                held.add(taken)
                owed.discard(taken)
        elif what == "pass":
            clock.now += number
        elif key in held:
            held.discard(key)
            if what == "done":
                work.done(key)
                not_before.pop(key, None)
            else:
                not_before[key] = clock.now + work.failed(key)
                owed.add(key)

    for key in list(held):
        work.done(key)
    clock.now += 1000
    left = set()
    while (taken := work.take()) is not None:
        left.add(taken)
        work.done(taken)
    assert owed <= left
