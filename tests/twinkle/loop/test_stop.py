import os
import signal

import pytest

from twinkle.loop.stop import StopRequested, StopSignals


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_an_exception_with_the_shells_exit_code(signum: int, code: int) -> None:
    with pytest.raises(StopRequested) as caught, StopSignals():
        send(signum)

    assert caught.value.exit_code == code


def test_a_shielded_block_ends_before_the_signal_is_raised() -> None:
    done = []
    with pytest.raises(StopRequested), StopSignals() as stop:
        with stop.shielded():
            send(signal.SIGTERM)
            done.append("whole")
        done.append("never reached")

    assert done == ["whole"]


def test_an_inner_shield_does_not_end_the_outer_one() -> None:
    done = []
    with pytest.raises(StopRequested), StopSignals() as stop, stop.shielded():
        with stop.shielded():
            send(signal.SIGINT)
        done.append("outer goes on")

    assert done == ["outer goes on"]


def test_an_error_in_a_shielded_block_is_not_lost() -> None:
    with pytest.raises(ValueError, match="the cause"), StopSignals() as stop, stop.shielded():
        send(signal.SIGINT)
        raise ValueError("the cause")


def test_a_repeat_is_the_same_wish_and_a_later_one_ends_at_once() -> None:
    now = [0.0]
    with StopSignals(clock=lambda: now[0]) as stop:
        with pytest.raises(StopRequested):
            send(signal.SIGTERM)
        with stop.shielded():
            send(signal.SIGINT)
            send(signal.SIGTERM)
        now[0] = 3.0
        with pytest.raises(SystemExit) as caught, stop.shielded():
            send(signal.SIGTERM)

    assert caught.value.code == 143


def test_the_handlers_that_were_there_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before
