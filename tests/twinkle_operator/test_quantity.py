"""Quantities, as resource.MustParse reads them."""

from decimal import Decimal

import pytest

from twinkle_operator.quantity import compare, is_quantity, parse, whole


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", "2"), ("500m", "0.5"), ("1.5Gi", "1610612736"), ("1e3", "1000"), ("1E3", "1000"), ("-1k", "-1000"),
     ("+.5", "0.5"), ("2.", "2"), ("100n", "1e-7"), ("3u", "3e-6"), ("1Ei", str(2**60)), ("1E", "1e18")],
)  # fmt: skip
def test_what_they_stand_for(text: str, number: str) -> None:
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "8GiB", "8 Gi", "1e", "1.2.3", "0x10", "8gi", "1Kk", "8Gi\n", "1e1000"])
def test_what_is_none(text: str) -> None:
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="is no quantity"):
        parse(text)


def test_bytes_are_whole() -> None:
    assert whole("8Gi") == 8 * 2**30
    assert whole("1500m") == 2
    assert whole("8 Gi") is None


def test_they_are_compared_by_size() -> None:
    assert compare("16Mi", "16777216") == 0
    assert compare("16M", "16Mi") == -1
    assert compare("1", "900m") == 1
