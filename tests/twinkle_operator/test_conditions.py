"""What a person reads of a stack."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinkle_operator.conditions import MOST, updated
from twinkle_operator.groups import Said


@given(st.text(alphabet=st.sampled_from("a \n\x1b\x9b\u202e[2J"), max_size=3 * MOST // 2))
def test_what_others_wrote_is_one_line_that_no_terminal_obeys(text: str) -> None:
    """The last words of a container are whatever its program wrote."""
    (made,) = updated([], {"Ready": ("False", Said("CrashLoopBackOff", text))}, 1, 0.0)

    assert made.message.isprintable()
    assert len(made.message) == min(len(text), MOST)
