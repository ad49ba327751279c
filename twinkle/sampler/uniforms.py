"""Random numbers that belong to a sample, not to a batch or a process.

The uniform for token t of sample j under seed s is word t % 4 of block t // 4 of the counter-based generator
Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the key (s, j). No global
generator is read or set.
"""

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORDS_PER_BLOCK = 4


def fresh_seed() -> int:
    """64 bits of entropy from the operating system."""
    return secrets.randbits(64)


def uniforms(keys: Sequence[tuple[int, int]], start: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for tokens start .. start + count - 1 of each (seed, sample index): [rows, count].

    ``start`` must be a multiple of 4, the number of tokens that one block serves.
    """
    generator = np.random.Philox(key=np.zeros(2, np.uint64))
    counter = np.array([start // WORDS_PER_BLOCK, 0, 0, 0], np.uint64)
    empty = np.zeros(WORDS_PER_BLOCK, np.uint64)
    words = np.empty((len(keys), count), np.uint64)
    for row, key in enumerate(keys):
        generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": np.array(key, np.uint64)},
            "buffer": empty,
            "buffer_pos": WORDS_PER_BLOCK,
            "has_uint32": 0,
            "uinteger": 0,
        }
        words[row] = generator.random_raw(count)
    numbers: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64)
    return numbers * 2.0**-53
