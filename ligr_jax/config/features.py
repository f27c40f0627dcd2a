"""Configuration of the features of a model."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class Feature:
    """How one column of the data enters the model."""

    kind: Literal["categorical", "bucket", "numeric", "vector"] = "categorical"
    """`categorical` looks ids up in a table; `bucket` cuts a numeric column at its quantiles into
    `rows - 1` buckets, which are looked up; `numeric` and `vector` are projected."""
    rows: int = 0
    """V, rows of the table. Row 0 stands for a missing value."""
    width: int = 0
    """E, width of the table, 0 for `model.table_width`; or the length of a vector."""
    lookup: Literal["hash", "direct", "qr"] = "hash"
    """`hash` hashes ids into rows 1..V-1; `direct` uses row id + 1 and needs 0 <= id < V - 1; `qr`
    sums two rows by the two halves of a 64-bit hash, so that few ids share both rows (LiRank 3.12;
    `ligr_jax.ops.hashing.qr_rows`)."""
    outcome: bool = False
    """Whether the value is known only after the impression. Outcomes are inputs of action tokens
    and never of item tokens."""
    bag: Literal["", "sum", "mean"] = ""
    """How the rows of several ids per impression are combined; "" for a single id."""
    bag_size: int = 0
    """At most this many ids per impression are looked up."""
    table: str = ""
    """Name of the table; "" stands for the name of the feature. Features can share a table."""

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
            f"table={self.table}: a {self.kind} feature has no table; leave table empty",
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
                f"lookup=qr needs rows >= 3, got rows={self.rows}",
            )
            require(
                self.bag != "mean",
                "lookup=qr sums two rows per id, which bag=mean would average; set bag=sum or "
                "lookup=hash",
            )
        require(
            not self.bag or self.bag_size >= 1,
            f"bag={self.bag} needs bag_size >= 1, the largest number of ids looked up, got "
            f"bag_size={self.bag_size}",
        )

    @property
    def has_table(self) -> bool:
        """Whether the feature is looked up in a table."""
        return self.kind in ("categorical", "bucket")

    @property
    def combine(self) -> Literal["", "sum", "mean"]:
        """How the rows of an impression are combined; "" if there is one row."""
        return self.bag or ("sum" if self.lookup == "qr" else "")

    @property
    def ids_each(self) -> int:
        """Number of rows that an impression looks up."""
        return (self.bag_size if self.bag else 1) * (2 if self.lookup == "qr" else 1)


class TableShape(NamedTuple):
    """Shape of a table: V rows and width E."""

    rows: int
    width: int
