"""The addresses of a storage actor: blocks lie one after the other, and go with the last of their bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_queue import ExtentError
from transfer_queue.storage.blocks import Blocks

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(SIZES, st.data())
def test_a_block_is_there_until_all_of_its_bytes_were_freed_in_any_order_and_pieces(
    sizes: list[int], data: st.DataObject
) -> None:
    blocks: Blocks[int] = Blocks()
    starts = [blocks.add(size, number) for number, size in enumerate(sizes)]
    total = sum(sizes)
    assert starts == [sum(sizes[:number]) for number in range(len(sizes))]
    owner = [number for number, size in enumerate(sizes) for _ in range(size)]
    left = set(range(total))
    cuts = sorted({0, total, *data.draw(st.lists(st.integers(0, total)))})
    pieces = data.draw(st.permutations(list(itertools.pairwise(cuts))))
    for start, end in pieces:
        alive = {owner[address] for address in left}
        left -= set(range(start, end))
        gone = alive - {owner[address] for address in left}

        assert blocks.free(start, end - start) == len(gone)
        there = {owner[address] for address in left}
        assert blocks.find(range(total)) == {starts[number]: number for number in there}
        assert (len(blocks), blocks.size) == (len(there), sum(sizes[number] for number in there))
    assert not left
    assert blocks.free(0, total) == 0


def test_addresses_are_never_given_out_again() -> None:
    blocks: Blocks[str] = Blocks()
    blocks.add(4, "a")
    blocks.free(0, 4)

    assert blocks.add(4, "b") == 4
    assert blocks.find([0, 3, 8]) == {}
    assert blocks.find([4, 7]) == {4: "b"}


def test_a_block_has_bytes() -> None:
    with pytest.raises(ExtentError, match="0 bytes"):
        Blocks[str]().add(0, "nothing")
