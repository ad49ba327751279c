import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinkle.sampler.uniforms import fresh_seed, uniforms

keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 1000))


@given(st.lists(keys, min_size=1, max_size=5), st.integers(1, 9))
def test_a_row_has_numpys_philox_numbers_whatever_rows_are_around(rows: list[tuple[int, int]], count: int) -> None:
    numbers = uniforms(rows, 0, count)
    for row, key in zip(numbers, rows, strict=True):
        alone = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64))).random(count)

        assert (row == alone).all()


@given(keys, st.integers(0, 20), st.integers(1, 9))
def test_a_number_depends_on_its_position_alone(key: tuple[int, int], block: int, count: int) -> None:
    whole = uniforms([key], 0, 4 * block + count)

    assert (uniforms([key], 4 * block, count) == whole[:, 4 * block :]).all()


def test_seeds_and_samples_have_different_numbers_that_are_uniform() -> None:
    numbers = uniforms([(seed, sample) for seed in range(20) for sample in range(20)], 0, 50)

    assert len(np.unique(numbers)) == numbers.size
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert np.allclose(np.quantile(numbers, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)


def test_global_generators_are_not_touched() -> None:
    before = np.random.get_state()
    uniforms([(1, 2)], 0, 8)
    after = np.random.get_state()

    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


def test_fresh_seeds_differ() -> None:
    assert len({fresh_seed() for _ in range(100)}) == 100


def test_the_numbers_are_the_same_forever() -> None:
    assert uniforms([(0, 0), (2**64 - 1, 7)], 0, 2).tolist() == [
        [0.011546754286331562, 0.24154919656271812],
        [0.07488100676745957, 0.8492815318761986],
    ]
