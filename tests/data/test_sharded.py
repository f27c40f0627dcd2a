"""Laws of gathers over shards: they equal reads of one concatenated column, and never leave it."""

import numpy as np
import pytest

from ligr_jax.data.sharded import ShardedColumn, locate

SIZES = (5, 1, 0, 40, 7)
STARTS = np.concatenate([[0], np.cumsum(SIZES)])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.float32, np.int64])
@pytest.mark.parametrize("sizes", [SIZES, (53,), (0, 53, 0), (300, 200), (0, 70, 0, 33, 90)])
def test_a_gather_equals_that_of_the_concatenated_column(dtype: type, sizes: tuple) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 100, n).astype(dtype) for n in sizes]
    rng.shuffle(order := list(range(len(parts))))
    # The parts lie in memory in another order than their numbers.
    memory = {k: parts[k].copy() for k in order}
    starts = np.concatenate([[0], np.cumsum(sizes)])
    column = ShardedColumn([memory[k] for k in range(len(parts))], starts)
    whole = np.concatenate(parts)
    n = len(whole)
    # Windows that are shorter and longer than a block, up to the last impression.
    begin = rng.integers(0, n, 12)
    windows = [(0, 4), (4, 7), (40, 53), (3, 3), (0, n), (n - 35, n), *zip(begin, begin + 60)]
    runs = np.concatenate([np.arange(a, min(b, n)) for a, b in windows])
    cases = [runs, rng.integers(0, n, (6, 9)), np.arange(n), np.zeros((2, 0), np.int64)]
    cases += [np.arange(i, i + 64).reshape(2, 32) for i in range(0, n - 64, 7)]
    for index in cases:
        located = locate(index, starts)
        np.testing.assert_array_equal(column.take(located), whole[index])
        assert column.take(located).dtype == dtype
        seen = np.zeros(index.shape, int)
        for shard, mask in located.by_shard():
            local = index[mask] - starts[shard]
            assert ((local >= 0) & (local < sizes[shard])).all()
            seen += mask
        assert (seen == 1).all()
    if n > 64:
        assert len(locate(np.arange(n), starts).first)


@pytest.mark.parametrize("sizes", [(300, 200), (0, 70, 0, 33, 90), (1000,)])
def test_a_block_never_leaves_its_shard(sizes: tuple) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for first in range(starts[-1] - 32):
        located = locate(np.arange(first, first + 32), starts)
        assert (located.first >= starts[located.first_shard]).all()
        assert (located.first + 32 <= starts[located.first_shard + 1]).all()


@pytest.mark.parametrize("wrong", [-1, 53, 2**40])
def test_an_impression_outside_of_the_data_is_refused(wrong: int) -> None:
    with pytest.raises(IndexError, match=r"not all in 0\.\.52"):
        locate(np.array([0, wrong]), STARTS)
