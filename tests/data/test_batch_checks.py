"""Laws of `Batch.validate`: valid batches pass, and every invalid value is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ligr_jax.config import Feature
from ligr_jax.data.batch import Batch
from ligr_jax.data.padding import padding_batch
from ligr_jax.data.schema import BadInput
from tests.batches import FEATURES, model_config, random_batch, random_layout

LAYOUT = [[[2, 1], [3]], [[1, 1, 2]]]  # two members, then one; eight impressions a row
COMBINED = {
    **FEATURES,
    "seen": Feature(rows=9, bag="sum", bag_size=2),
    "author": Feature(rows=9, lookup="qr"),
}
MODEL = model_config(features=COMBINED)


def batch(layout: list[list[list[int]]] = LAYOUT) -> Batch:
    made = random_batch(layout, 8)
    valid = made.member > 0
    rows = np.where(valid[..., None], [1, -1], -1).astype(np.int32)
    return made._replace(ids={**made.ids, "seen": rows, "author": rows})


def test_batches_of_the_pipeline_and_of_padding_are_valid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = batch(random_layout(rng, 3, 8))
        assert made.validate(MODEL) is made
    padding_batch(MODEL, 2, 5).validate(MODEL)


def put(field: str, position: tuple[Any, ...], value: float) -> Callable[[Batch], Batch]:
    """Return a function that sets a value of a field, e.g. `ids.item_id`."""

    def change(made: Batch) -> Batch:
        name, _, key = field.partition(".")
        whole = getattr(made, name)
        array = np.array(whole[key] if key else whole)
        array[position] = value
        return made._replace(**{name: {**whole, key: array} if key else array})

    return change


def replace(**fields: Any) -> Callable[[Batch], Batch]:
    return lambda made: made._replace(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("ids.item_id", (1, 2), 50),
            r"ids\['item_id'\]\[1, 2\] is 50: the table has rows",
        ),
        (put("ids.item_id", (0, 0), -1), r"ids\['item_id'\]\[0, 0\] is -1: .*item_id.rows"),
        (put("ids.seen", (0, 3, 1), 9), r"ids\['seen'\]\[0, 3, 1\] is 9: .* -1..8, where -1 is"),
        (put("ids.author", (0, 3, 1), -2), r"ids\['author'\]\[0, 3, 1\] is -2"),
        (put("session", (1, 1), 2), r"session\[1, 1\] is 2: count the sessions .* without gaps"),
        (put("session", (1, 3), 0), r"session\[1, 3\] is 0: .* a wrong attention mask; sort"),
        (put("session", (0, slice(3, 6)), 1), r"session\[0, 3\] is 1: count the sessions"),
        (put("member", (0, 5), 4), r"member\[0, 5\] is 4: number the members"),
        (put("member", (0, 0), 2), r"member\[0, 0\] is 2: number the members"),
        (put("member", (1, 6), 1), r"member\[1, 6\] is 1: .* padding at its end"),
        (put("time", (0, 1), np.nan), r"time\[0, 1\] is nan: times are hours"),
        (put("time", (1, 3), 1), r"time\[1, 3\] is 1.0: the previous impression .* is later"),
        (put("numeric.age", (0, 2), 37), r"numeric\['age'\]\[0, 2\] is 37.0: normalize"),
        (put("vectors.content", (0, 2, 1), np.nan), r"vectors\['content'\]\[0, 2, 1\] is nan"),
        (put("labels", (0, 2, 1), 2), r"labels\[0, 2, 1\] is 2: labels are 1, 0, or -1"),
        (put("weight", (0, 2), np.nan), r"weight\[0, 2\] is nan: weights are finite"),
        (put("weight", (0, 7), 1), r"weight\[0, 7\] is 1.0: set the weight of padding"),
        (replace(ids={}), r"batch.ids has no 'item_id', a feature of the model; it has \[\]"),
        (replace(time=np.zeros((2, 8), int)), r"batch.time has dtype int64; convert it to floats"),
        (replace(session=np.zeros((2, 8))), "batch.session has dtype float64; .* integers"),
        (replace(labels=np.zeros((2, 8, 2), int)), r"labels has shape \[2, 8, 2\]; .*\[2, 8, 3\]"),
        (replace(member=np.zeros(8, int)), r"member has shape \[8\]; give it two axes \[B, N\]"),
    ],
)
def test_an_invalid_value_is_named_with_position_and_remedy(
    change: Callable[[Batch], Batch], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        change(batch()).validate(MODEL)
