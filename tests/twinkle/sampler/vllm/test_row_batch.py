"""How rows of a running batch draw, without an engine."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinkle.data_format import SamplingParams
from twinkle.sampler.vllm.row_batch import Row, RowBatch, RowSpec

V = 11
CPU = torch.device("cpu")


def rows(params: list[SamplingParams], lengths: list[int]) -> list[Row]:
    return [
        Row(RowSpec(p, (2,), seed=i, sample_index=0), [0] * n)
        for i, (p, n) in enumerate(zip(params, lengths, strict=True))
    ]


some_params = st.builds(
    SamplingParams,
    max_tokens=st.just(100),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_k=st.sampled_from([-1, 3]),
    top_p=st.sampled_from([0.5, 1.0]),
    logprobs=st.sampled_from([None, 0, 4]),
    min_tokens=st.sampled_from([0, 70]),
    allowed_token_ids=st.sampled_from([None, [2, 3, 7]]),
)


@given(st.lists(st.tuples(some_params, st.integers(0, 99)), min_size=1, max_size=9), st.integers(1, 9))
def test_some_rows_at_a_time_draw_what_all_draw_together(drawn: list[tuple[SamplingParams, int]], step: int) -> None:
    params, lengths = [p for p, _ in drawn], [n for _, n in drawn]
    logits_RV = torch.randn(len(drawn), V, generator=torch.Generator().manual_seed(0))

    whole = RowBatch(rows(params, lengths), V, CPU).draw(logits_RV)
    parts = RowBatch(rows(params, lengths), V, CPU, chunk=step * V).draw(logits_RV)

    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    for (p, length), token in zip(drawn, whole[0].tolist(), strict=True):
        assert p.allowed_token_ids is None or token in p.allowed_token_ids
        assert length >= p.min_tokens or token != 2


def test_a_row_goes_on_with_its_numbers_wherever_it_is_taken_up() -> None:
    """As after a preemption, when vLLM takes a row out and puts it in again."""
    params = SamplingParams(max_tokens=200)
    whole = rows([params], [0])[0]
    numbers = []
    for _ in range(200):
        numbers.append(whole.uniform())
        whole.output.append(0)

    assert [rows([params], [n])[0].uniform() for n in range(200)] == numbers
    assert len(set(numbers)) == 200
