"""Declaration of a table's columns: which are actions, features, times and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ligr_jax.data.schema import BAG_SEPARATOR, RANDOM, SESSION, TIME, BadInput
from ligr_jax.data.sources.label_rules import LabelRule
from ligr_jax.data.sources.list_columns import ListColumn
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.sources.times import TimeOptions

ITEM, ACTOR = "item_id", "actor_id"
# Columns with a role by their name alone; `--ignore` removes the role.
BY_NAME = (SESSION, RANDOM, ACTOR)
LOSS_WEIGHT = "\x1fweight"  # name in a batch; a column named `weight` is an ordinary feature
EXAMPLE = (
    "ligr prepare FILE --out DIR --map member_id=user item_id=post timestamp_ms=ts "
    "--actions click,like --categorical surface --numeric age --outcome dwell"
)


@dataclass(frozen=True)
class TableColumns:
    """Roles of the columns of a table, by canonical name.

    Attributes:
        names: canonical name -> name in the table, if they differ.
        actions: label columns.
        late: actions whose labels become known at an unknown later time (`LogSchema.late_actions`).
        categorical, bag, numeric, vector: feature columns by kind.
        outcome: features known only after the impression; numeric unless listed under another kind.
        weight: column of the table with the weights of rows in the loss, or "".
        items: table of item features, one row per `item_id`.
        separator: text between the ids of a bag that is stored as text.
        ignore: columns that are dropped, whatever their names are.
        labels: actions computed from columns.
        label_table: table of labels (`ligr_jax.data.sources.label_table`).
        labels_on: key columns that it shares with the log.
        explode: columns with lists of shown items, which become one row per item.
        time: how the time column is read.
        reading: how text files are read.

    Raises:
        BadInput: two options contradict each other.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    bag: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    weight: str = ""
    items: Path | None = None
    separator: str = BAG_SEPARATOR
    ignore: tuple[str, ...] = ()
    labels: tuple[LabelRule, ...] = ()
    label_table: Path | None = None
    labels_on: tuple[str, ...] = ()
    explode: tuple[ListColumn, ...] = ()
    time: TimeOptions = field(default_factory=TimeOptions)
    reading: TextOptions = field(default_factory=TextOptions)

    def __post_init__(self) -> None:
        for name in [n for n in self.ignore if n in self.names.values()]:
            raise BadInput(
                f"--ignore {name}: --map uses this column; remove one of the two options"
            )
        if (self.label_table is None) != (not self.labels_on):
            raise BadInput(
                "give both --labels FILE and --labels-on KEY,KEY, e.g. --labels clicks.parquet "
                "--labels-on request_id,item_id"
            )
        if self.time.absent and TIME in self.labels_on:
            raise BadInput(f"--labels-on {TIME}: the log has no times (--no-times)")
        self._refuse_two_kinds()
        ruled = [r.action for r in self.labels]
        repeated = sorted({n for n in ruled if ruled.count(n) > 1})
        if repeated:
            raise BadInput(f"--label: {repeated} have two rules; give each action one rule")
        for name in [n for n in self.late if n not in self.all_actions]:
            raise BadInput(f"--late {name}: not an action; name it in --actions or --label too")

    def _refuse_two_kinds(self) -> None:
        """Raise `BadInput` if one name is declared as two kinds of feature."""
        kinds = ("categorical", "bag", "numeric", "vector")
        for k, first in enumerate(kinds):
            for second in kinds[k + 1 :]:
                both = [n for n in getattr(self, first) if n in getattr(self, second)]
                if both and (first, second) != ("categorical", "bag"):
                    raise BadInput(
                        f"column {both[0]!r} is named by --{first} and --{second}; for two "
                        f"features of a column rename the second, e.g. --map {both[0]}_2={both[0]} "
                        f"--{second} {both[0]}_2"
                    )

    @property
    def renamed(self) -> dict[str, str]:
        """Name in the table -> canonical name, if they differ; the first of several."""
        out: dict[str, str] = {}
        for ours, theirs in self.names.items():
            out.setdefault(theirs, ours)
        return out

    @property
    def copies(self) -> dict[str, str]:
        """Second use of a column: additional name -> canonical name of the column.

        A column has a second use if `--map` names it twice, or if a feature is declared by the
        table's name of a column that is mapped.
        """
        renamed = self.renamed
        out = {o: renamed[t] for o, t in self.names.items() if renamed[t] != o}
        mentioned = [n for n in (*self.features, *self.all_actions) if n in renamed]
        return out | {n: renamed[n] for n in mentioned if n not in self.names}

    @property
    def features(self) -> tuple[str, ...]:
        """All columns that are declared as a feature or an outcome."""
        return (*self.categorical, *self.bag, *self.numeric, *self.vector, *self.outcome)

    @property
    def all_actions(self) -> tuple[str, ...]:
        """Declared actions, then actions of rules, without `is_random`."""
        ruled = [r.action for r in self.labels if r.action != RANDOM]
        return tuple(dict.fromkeys([*self.actions, *ruled]))

    def canonical(self, name: str) -> str:
        """Return the canonical name of a column of the table."""
        return self.renamed.get(name, name)

    def original_names(self) -> dict[str, str]:
        """Return the table's names of all renamed columns, second uses and weights."""
        copies = {c: self.names.get(ours, ours) for c, ours in self.copies.items()}
        weight = {LOSS_WEIGHT: self.weight} if self.weight else {}
        return {**self.names, **copies, **weight}


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `CANONICAL=NAME` pairs.

    Returns:
        Canonical name -> name in the table.

    Raises:
        BadInput: a pair is not complete, or a canonical name occurs twice.
    """
    out: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs) or ours in out:
            raise BadInput(f"--map {pair}: write each name once, as canonical=theirs: {EXAMPLE}")
        out[ours] = theirs
    return out
