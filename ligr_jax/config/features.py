"""Configuration of the features of a model."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ligr_jax.config.errors import require
from ligr_jax.config.lists import join_list

POSITION_EDGES = (2.0, 5.0)  # buckets of display positions: 1; 2 to 4; 5 and below (CADET)
_MOST_POST_ROWS = 256  # each has an output layer


@dataclass(frozen=True)
class Feature:
    """How one column of the data enters the model."""

    kind: Literal["categorical", "bucket", "numeric", "vector"] = "categorical"
    """`categorical` looks ids up in a table; `bucket` cuts a numeric column at its quantiles into
    `rows - 1` buckets, which are looked up; `numeric` and `vector` are projected."""
    rows: int = 0
    """V, rows of the table. Row 0 stands for a missing value. Set to match `edges`."""
    width: int = 0
    """E, width of the table, 0 for `model.table_width`; or the length of a vector."""
    lookup: Literal["hash", "direct", "qr"] = "hash"
    """`hash` hashes ids into rows 1..V-1; `direct` uses row id + 1 and needs 0 <= id < V - 1; `qr`
    sums two rows by the two halves of a 64-bit hash, so that few ids share both rows (LiRank 3.12;
    `ligr_jax.ops.hashing.qr_rows`)."""
    outcome: bool = False
    """Whether the value is known only after the impression. Outcomes are inputs of action tokens
    and never of item tokens."""
    late: bool = False
    """Whether only the heads read the value, and no token (Feed-SR's late fusion)."""
    post: bool = False
    """Whether the value is known only after scoring, e.g. the display position. No token reads it;
    every bucket or id has output layers of its own, and serving asks for one of them (CADET)."""
    edges: tuple[float, ...] = ()
    """Values at which the buckets 2, 3, ... of a `bucket` feature begin, in place of quantiles.
    Empty for a post feature: 2 and 5, so that the buckets are 1, 2 to 4, and 5 or more."""
    bag: Literal["", "sum", "mean"] = ""
    """How the rows of several ids per impression are combined; "" for a single id."""
    bag_size: int = 0
    """At most this many ids per impression are looked up."""
    table: str = ""
    """Name of the table; "" stands for the name of the feature. Features can share a table."""

    def __post_init__(self) -> None:
        self._set_edges()
        self._check_role()
        if self.has_table or self.post:
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

    def _set_edges(self) -> None:
        """Set the default edges of a post feature, and the number of rows that edges make."""
        if self.post and self.kind == "bucket" and not self.edges:
            object.__setattr__(self, "edges", POSITION_EDGES)
        if not self.edges:
            return
        require(
            self.kind == "bucket" and list(self.edges) == sorted(set(self.edges)),
            f"edges={join_list(map(str, self.edges))} of a {self.kind} feature: only bucket "
            "features have edges, and they increase",
        )
        object.__setattr__(self, "rows", len(self.edges) + 2)

    def _check_role(self) -> None:
        roles = [name for name in ("outcome", "late", "post") if getattr(self, name)]
        require(
            len(roles) <= 1,
            f"{'=true and '.join(roles)}=true exclude each other: outcomes are inputs of action "
            "tokens, and the heads read late and post features; set one of them",
        )
        require(
            not self.post
            or (
                self.kind in ("bucket", "categorical")
                and not self.combine
                and self.rows <= _MOST_POST_ROWS
            ),
            f"post=true needs kind=bucket or categorical, one id per impression and at most "
            f"{_MOST_POST_ROWS} rows, because each row has output layers; got kind={self.kind}, "
            f"lookup={self.lookup}, bag={self.bag} and rows={self.rows}",
        )

    @property
    def is_item(self) -> bool:
        """Whether the feature is an input of item tokens."""
        return not (self.outcome or self.late or self.post)

    @property
    def has_table(self) -> bool:
        """Whether the feature is looked up in a table."""
        return self.kind in ("categorical", "bucket") and not self.post

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
