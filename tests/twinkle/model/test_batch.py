"""Padded rows and their micro-batches."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinkle.data_format import InputFeature
from twinkle.errors import DataError
from twinkle.model.batch import batch_of, cut_rows, make_batch


def test_rows_are_padded_on_the_right_and_columns_belong_to_tokens() -> None:
    batch = make_batch(
        [[5, 6], [7]], [[8, 9], [4, 3, 2]], [[-1.0, -2.0], [-3.0, -4.0, -5.0]], [0.5, -0.5], pad_token_id=1
    )

    assert batch.input_ids_BT.tolist() == [[5, 6, 8, 9], [7, 4, 3, 2]]
    assert batch.response_mask_BT.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    assert batch.old_logprobs_BT.tolist() == [[0, 0, -1, -2], [0, -3, -4, -5]]
    assert batch.weights_B.tolist() == [1, 1]

    wider = make_batch([[5, 6], [7]], [[8], [4, 3, 2]], [[-1.0], [-3.0, -4.0, -5.0]], [0.5, -0.5], pad_token_id=1)

    assert wider.input_ids_BT.tolist() == [[5, 6, 8, 1], [7, 4, 3, 2]]
    assert wider.attention_mask_BT.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert wider.position_ids_BT.tolist() == [[0, 1, 2, 2], [0, 1, 2, 3]]


def test_what_others_said_in_between_is_read_but_not_trained() -> None:
    batch = make_batch([[5]], [[6, 7, 8]], [[-1.0, -9.0, -2.0]], [1.0], response_masks=[[1, 0, 1]])

    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1]]
    assert batch.response_mask_BT.tolist() == [[0, 1, 0, 1]]
    assert batch.old_logprobs_BT.tolist() == [[0, -1, 0, -2]]
    with pytest.raises(DataError, match="row 0 has 3 response tokens, but a mask of 2"):
        make_batch([[5]], [[6, 7, 8]], [[-1.0, -9.0, -2.0]], [1.0], response_masks=[[1, 0]])


def test_a_conversation_of_two_turns_is_one_row() -> None:
    feature: InputFeature = {
        "input_ids": [5, 6, 7, 8, 9],
        "labels": [-100, 6, -100, -100, 9],
        "logprobs": [0.0, -1.0, 0.0, 0.0, -2.0],
    }
    batch = batch_of([feature, feature], [1.0, -1.0])

    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 8, 9]] * 2
    assert batch.response_mask_BT.tolist() == [[0, 1, 0, 0, 1]] * 2
    assert batch.old_logprobs_BT.tolist() == [[0, -1, 0, 0, -2]] * 2


@pytest.mark.parametrize("missing", ["labels", "logprobs"])
def test_a_feature_without_labels_or_their_log_probs_is_named(missing: str) -> None:
    feature: Any = {"input_ids": [5, 6], "labels": [-100, 6], "logprobs": [0.0, -1.0]}
    del feature[missing]
    with pytest.raises(DataError, match=r"row 0 has \d labels and \d log-probs for \d tokens"):
        batch_of([feature], [1.0])


def test_padding_rows_are_not_live() -> None:
    batch = make_batch([[5], [5]], [[6], [6, 7]], [[0.0], [0.0, 0.0]], [1.0, 1.0], weights=[1.0, 0.0])

    assert batch.live_BT.tolist() == [[False, True, False], [False, False, False]]


def test_a_slice_is_cut_to_its_longest_row() -> None:
    batch = make_batch([[5], [5], [5, 5, 5]], [[6], [6, 7], [6, 7]], [[0.0], [0.0] * 2, [0.0] * 2], [1.0, 2.0, 3.0])

    part = batch.rows(0, 2)

    assert part.input_ids_BT.shape == (2, 3)
    assert part.advantages_B.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("prompt", "logprobs"), [([], [0.0]), ([5], [0.0, 0.0])])
def test_a_row_that_cannot_be_trained_on_is_named(prompt: list[int], logprobs: list[float]) -> None:
    with pytest.raises(DataError, match=r"row 1 has \d prompt tokens, 1 response tokens and \d log-probs"):
        make_batch([[5], prompt], [[6], [6]], [[0.0], logprobs], [1.0, 1.0])


@pytest.mark.parametrize(
    ("rows", "tokens", "expected"),
    [
        (0, 0, [(0, 5)]),
        (2, 0, [(0, 2), (2, 4), (4, 5)]),
        (0, 12, [(0, 3), (3, 4), (4, 5)]),  # 3 rows of 4; then 20 alone, too long; then the last
        (2, 12, [(0, 2), (2, 3), (3, 4), (4, 5)]),
    ],
)
def test_cuts_by_hand(rows: int, tokens: int, expected: list[tuple[int, int]]) -> None:
    assert list(cut_rows([2, 4, 3, 20, 1], rows=rows, tokens=tokens)) == expected


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 5), st.integers(0, 60))
def test_cuts_cover_every_row_once_within_their_bounds(lengths: list[int], rows: int, tokens: int) -> None:
    cuts = list(cut_rows(lengths, rows=rows, tokens=tokens))

    assert [index for start, stop in cuts for index in range(start, stop)] == list(range(len(lengths)))
    for start, stop in cuts:
        assert not rows or stop - start <= rows
        assert not tokens or stop - start == 1 or (stop - start) * max(lengths[start:stop]) <= tokens


def test_a_batch_moves_with_all_its_tensors() -> None:
    moved = make_batch([[5]], [[6]], [[0.0]], [1.0]).to(torch.device("meta"))

    assert {tensor.device.type for tensor in vars(moved).values() if tensor is not None} == {"meta"}
