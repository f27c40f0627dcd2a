"""How columns of the data enter a model."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class Feature:
    """How one column enters the model.

    kind: `categorical` (a table of `rows`), `bucket` (a numeric column cut at its quantiles into
        `rows - 1` buckets, then a table), `numeric` (normalized, projected), `vector` (projected).
    rows: table rows; row 0 stands for "missing".
    width: embedding width of the table, 0 for `model.table_width`; length of a vector.
    lookup: `hash` ids into rows 1..rows-1, use them as they are (`direct`: 0 <= id < rows - 1), or
        `qr`: two rows by the two halves of a 64-bit hash, summed, so that ids seldom share both
        (LiRank 3.12; `ligr_jax.ops.hashing.qr_rows`).
    bag: how the rows of a column with several ids per impression become one: `sum` or `mean`.
    bag_size: the first so many ids of an impression are looked up; the rest is left out.
    table: the table looked up, "" for the feature's own, named like it. Features of one table share
        its rows.
    outcome: known only after the impression: joins the action token, never the item token.
    """

    kind: Literal["categorical", "bucket", "numeric", "vector"] = "categorical"
    rows: int = 0
    width: int = 0
    lookup: Literal["hash", "direct", "qr"] = "hash"
    outcome: bool = False
    bag: Literal["", "sum", "mean"] = ""
    bag_size: int = 0
    table: str = ""

    def __post_init__(self) -> None:
        if self.has_table:
            require(
                2 <= self.rows < 2**31,
                f"a {self.kind} feature needs rows in 2..2^31-1, got rows={self.rows}",
            )
        require(
            self.kind != "vector" or self.width > 0,
            "a vector feature needs width = the length of the vector",
        )
        require(
            self.has_table or not self.table,
            f"table={self.table}: a {self.kind} feature looks no table up; leave table empty",
        )
        require(
            self.kind == "categorical" or not self.bag,
            f"bag={self.bag}: a {self.kind} feature has no ids to bag; leave bag empty",
        )
        if self.lookup == "qr":
            require(
                self.kind == "categorical",
                f"lookup=qr is for categorical features, got kind={self.kind}; set lookup=hash",
            )
            require(
                self.rows >= 3,
                f"lookup=qr needs two rows and the missing one, got rows={self.rows}",
            )
            require(
                self.bag != "mean",
                "lookup=qr sums two rows per id, which bag=mean would halve; set bag=sum or "
                "lookup=hash",
            )
        require(
            not self.bag or self.bag_size >= 1,
            f"bag={self.bag} needs bag_size >= 1, the most ids looked up, got "
            f"bag_size={self.bag_size}",
        )

    @property
    def has_table(self) -> bool:
        return self.kind in ("categorical", "bucket")

    @property
    def combine(self) -> Literal["", "sum", "mean"]:
        """How the rows an impression looks up become one; "" where it is one row."""
        return self.bag or ("sum" if self.lookup == "qr" else "")

    @property
    def ids_each(self) -> int:
        """Rows that an impression looks up."""
        return (self.bag_size if self.bag else 1) * (2 if self.lookup == "qr" else 1)


class TableShape(NamedTuple):
    """V and E of a table."""

    rows: int
    width: int
