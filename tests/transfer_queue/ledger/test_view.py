"""Views over thousands of rows beside a plain search, since the state machine's partitions fit into one block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer_queue.ledger.clock import ledger_of, want
from transfer_queue.ledger import Ledger
from transfer_queue.ledger.view import BLOCK, FREE


def plain(ledger: Ledger, fields: tuple[str, ...], unit: int) -> list[int]:
    """The rows that are ready, searched from scratch."""
    partition = ledger.steps.alive[0]
    ready = (partition.exists != 0) & (partition.task("train").state == FREE)
    for field in fields:
        ready &= partition.has(field)
    whole = ready.reshape(-1, unit).all(axis=1).repeat(unit)
    return np.flatnonzero(whole).tolist()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_a_view_gives_is_what_a_search_finds(data: st.DataObject) -> None:
    samples = data.draw(st.sampled_from([1, 3]))
    groups = 9 * BLOCK // samples
    ledger, _ = ledger_of(prompts=groups, partitions=1, samples=samples)
    indexes = ledger.put_rows(groups * samples, ["x"], 0)
    assert indexes is not None
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    order = random.permutation(groups)
    leases: list[int] = []
    for act in data.draw(st.lists(st.sampled_from(["write", "take", "take", "release", "ack"]), max_size=25)):
        unit = data.draw(st.sampled_from([1, samples]))
        if act == "write":
            count = data.draw(st.sampled_from([1, 3, 400]))
            chosen, order = order[:count], order[count:]
            rows = (chosen[:, None] * samples + np.arange(samples)).ravel()
            for part in np.array_split(random.permutation(rows), 2):
                if len(part):
                    ledger.put_fields(part.tolist(), ["y"])
        elif act == "take":
            ready = plain(ledger, ("x", "y"), unit)
            batch = min(data.draw(st.sampled_from([1, 20, 500])) * unit, len(ready))
            if batch:
                taken = ledger.take(want(batch=batch, fields=("x", "y"), whole_groups=unit > 1, lease_s=9, step=0))
                assert taken is not None
                assert taken.indexes == ready[:batch]
                leases.append(taken.lease_id or 0)
        elif leases:
            lease = leases.pop(data.draw(st.integers(0, len(leases) - 1)))
            ledger.release(lease) if act == "release" else ledger.ack(lease)
    for unit in {1, samples}:
        view = ledger.steps.alive[0].view("train", ("x", "y"), unit)
        assert view.ready_rows == len(plain(ledger, ("x", "y"), unit))


class Counted(np.ndarray):  # type: ignore[type-arg]
    """An array that counts how many of its cells are looked at in slices and gathered blocks."""

    looked = 0

    def nonzero(self) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg,override]
        Counted.looked += self.size
        return np.asarray(self).nonzero()


@pytest.mark.parametrize("back", [False, True])
def test_finding_a_batch_does_not_search_the_rows_that_wait(back: bool) -> None:
    ledger, _ = ledger_of(prompts=400_000, partitions=1, samples=1)
    indexes = ledger.put_rows(400_000, ["x"], 0)
    assert indexes is not None
    ledger.put_fields(indexes[200_000::7000], ["y"])
    request = want(batch=2, fields=("x", "y"), step=0, lease_s=9)
    first = ledger.take(request)
    assert first
    view = ledger.steps.alive[0].view("train", ("x", "y"), 1)
    view._ready.array = view._ready.array.view(Counted)
    Counted.looked = 0
    if back:
        ledger.release(first.lease_id or 0)
    taken = ledger.take(request)

    assert taken is not None
    assert taken.indexes == indexes[200_000::7000][:2] if back else indexes[200_000::7000][2:4]
    assert 0 < Counted.looked <= 3 * BLOCK
