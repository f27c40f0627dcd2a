"""Tables of users and items that batches look up by id."""

import polars as pl

from ligr_jax.data.sources.id_table import IdTable
from ligr_jax.data.sources.source import LogBatch


def test_rows_without_an_id_and_repeated_ids_do_not_disturb_the_others() -> None:
    frame = pl.DataFrame({"id": [5, None, 2, 5, 9], "age": [50, 0, 20, 51, 90]})
    table = IdTable.of([LogBatch("users.csv", 1, frame, text=False)], "id", ("age",))
    wanted = pl.Series([2, 5, 9, 3, None])
    assert table.find(wanted)["age"].to_list() == [20, 50, 90, None, None]
