"""`check_sampler` passes every good sampler and names what each bad one does."""

from typing import Any

import pytest

from tests.transfer_queue import bad_samplers as bad
from tests.transfer_queue.samplers_for_tests import Largest
from transfer_queue import (
    DPSampler,
    GRPOSampler,
    SamplerError,
    SeqlenBalancedSampler,
    SequentialSampler,
    StalenessFilter,
)
from transfer_queue.testing import check_sampler

STALE: dict[str, Any] = {"sampler_params": {"version": 4}, "values": {"version": lambda rng: rng.randint(0, 5)}}
FRESH: dict[str, Any] = {"sampler_params": {"version": 4}, "values": {"version": lambda rng: rng.randint(2, 5)}}


@pytest.mark.parametrize(
    ("sampler", "arguments"),
    [
        (SequentialSampler(), {"num_n_samples": 3}),
        (GRPOSampler(3), {"num_n_samples": 3}),
        (DPSampler(1, 3), {"num_n_samples": 2}),
        (SeqlenBalancedSampler("tokens", num_n_samples=2), {"num_n_samples": 2}),
        (StalenessFilter(SequentialSampler, 2, policy="wait"), FRESH),
        (StalenessFilter(SeqlenBalancedSampler(num_n_samples=2), 2), {"num_n_samples": 2, **FRESH}),
        (bad.Filled, {"num_n_samples": 2}),
        (bad.SaysThatItDrawsLots, {}),
    ],
)
def test_a_good_sampler_passes(sampler: Any, arguments: dict[str, Any]) -> None:
    report = check_sampler(sampler, **arguments)

    assert report.rounds == 200
    assert report.rows_chosen > 0
    assert report.rows_rejected == 0
    ranks = 3 if isinstance(sampler, DPSampler) else 2
    assert report.rows_served == 2 * 8 * ranks * arguments.get("num_n_samples", 1)


def test_rejected_rows_are_counted() -> None:
    report = check_sampler(StalenessFilter(GRPOSampler(2), 2), num_n_samples=2, **STALE)

    assert report.rows_rejected > 0
    assert report.rows_served + report.rows_rejected == 64


@pytest.mark.parametrize(
    ("sampler", "arguments", "named"),
    [
        (bad.TakesWhatWasNotOffered, {}, r"returned index \d+, which was not offered to it"),
        (bad.OffersUnreadyRows, {}, r"filter_ready_indices returned row \d+, which lacks \["),
        (bad.OffersTakenRows, {}, r"returned row \d+, which the task holds, has consumed or cannot have"),
        (bad.OffersRowsThatWereNotPut, {}, r"filter_ready_indices returned row \d+, which was not put"),
        (bad.OffersARowTwice, {}, r"filter_ready_indices returned a row twice: \["),
        (bad.TakesARowTwice, {}, r"returned index \d+ twice"),
        (bad.TakesTooMany, {}, r"returned \d+ indices where \d+ were asked for"),
        (bad.CutsGroups, {"num_n_samples": 2}, r"returned 1 of the 2 rows of group \d+"),
        (bad.EmptiesAllIndices, {}, r"filter_ready_indices changed its argument all_indices from \[\d.* to \[\]"),
        (bad.MarksRowsAsTaken, {}, r"changed its argument consumption_status from \["),
        (bad.SortsReadyIndices, {}, r"sample changed its argument ready_indices from \["),
        (bad.WritesToValues, {}, r"sample\(.* raised ValueError: assignment destination is read-only"),
        (bad.DrawsLots, {}, r"answered \[.* and then \[.* to the same arguments; set deterministic = False"),
        (bad.FailsWithoutRows, {}, r"sample\(\[\], …\) raised ValueError"),
        (bad.FindsRowsInNothing, {}, r"sample returned \[0\] where no row was ready"),
        (bad.ReturnsAMask, {}, r"filter_ready_indices returned \[(True|False).* is no index"),
        (bad.RejectsTakenRows, {}, r"rejected row \d+ \(old\), which was not put, or which the task cannot take"),
        (bad.HasArgumentsThatCannotTravel(object()), {}, r"cannot travel to the controller.*use plain arguments"),
        (bad.FailsOnLargePartitions, {"num_n_samples": 2}, r"in a real controller: .*MemoryError: too large for me"),
    ],
)
def test_each_breach_is_one_sentence(sampler: Any, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(SamplerError, match=named) as caught:
        check_sampler(sampler, **arguments)

    assert str(caught.value).splitlines() == caught.value.details["breaches"]


def test_a_setting_outside_the_constructor_does_not_travel() -> None:
    sampler = bad.KeepsASettingElsewhere()
    sampler.last_first = True
    with pytest.raises(SamplerError, match=r"it answers .* here and .* where it was built anew"):
        check_sampler(sampler)


@pytest.mark.parametrize("sampler", [bad.StarvesTheLastGroup, bad.Skeleton])
def test_rows_that_are_never_served_are_missed(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer_queue.testing.PATIENCE_S", 3.0)
    with pytest.raises(SamplerError, match=r"of \d+ rows in a real controller it served \d+ .* left \d+ for ever: "):
        check_sampler(sampler, num_n_samples=2)


def test_a_class_that_nobody_can_import_cannot_travel() -> None:
    class Local(SequentialSampler):
        pass

    with pytest.raises(SamplerError, match=r"Local.*cannot travel"):
        check_sampler(Local)


def test_a_sampler_that_needs_values_sees_them() -> None:
    assert check_sampler(Largest("n")).rows_served == 32
