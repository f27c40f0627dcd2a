"""One frozen value holds a whole run: `Config`, overridden by dotted names, flat for trackers.

    config = override(Config(), ["model.depth=4", "optim.dense_lr=3e-4"])

The same names serve the command line, sweep files and the tracker's run config. A name or value
that does not fit fails at once, with the nearest valid names; a combination that cannot work fails
where the dataclass is made, with the values and the remedy.
"""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

PLACEMENTS = ("auto", "replicated", "column", "row", "table")


class ConfigError(ValueError):
    """A configuration that cannot work: the message names the field, the value and the remedy."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


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
            _require(
                2 <= self.rows < 2**31,
                f"a {self.kind} feature needs rows in 2..2^31-1, got rows={self.rows}",
            )
        _require(
            self.kind != "vector" or self.width > 0,
            "a vector feature needs width = the length of the vector",
        )
        _require(
            self.has_table or not self.table,
            f"table={self.table}: a {self.kind} feature looks no table up; leave table empty",
        )
        _require(
            self.kind == "categorical" or not self.bag,
            f"bag={self.bag}: a {self.kind} feature has no ids to bag; leave bag empty",
        )
        if self.lookup == "qr":
            _require(
                self.kind == "categorical",
                f"lookup=qr is for categorical features, got kind={self.kind}; set lookup=hash",
            )
            _require(
                self.rows >= 3,
                f"lookup=qr needs two rows and the missing one, got rows={self.rows}",
            )
            _require(
                self.bag != "mean",
                "lookup=qr sums two rows per id, which bag=mean would halve; set bag=sum or "
                "lookup=hash",
            )
        _require(
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


@dataclass(frozen=True)
class ModelConfig:
    """LiGR: its inputs, its two stacks of gated blocks, its ablations (LiGR 3.2, A.1)."""

    features: Mapping[str, Feature] = field(default_factory=dict)
    actions: tuple[str, ...] = ("click",)
    prior: tuple[float, ...] = ()  # base rate per action: where the output biases start
    width: int = 64  # D
    depth: int = 2  # historical layers
    set_depth: int = 1  # in-session set-wise layers, after the historical ones
    heads: int = 2  # H; a head is width / heads wide
    ffn: Literal["gelu", "swiglu", "none"] = "gelu"
    ffn_factor: float = 4.0  # F = ffn_factor * width
    gate: Literal["sigmoid", "none"] = "sigmoid"
    attention: Literal["softmax", "silu", "sigmoid"] = "softmax"
    mask: Literal["session", "causal", "session_lag"] = "session"
    # What an action token holds: the actions, which find their item by attention (the paper's), or
    # the item beside them, which small budgets need: finding it takes long to learn.
    action_token: Literal["actions", "actions_and_item"] = "actions"
    position: Literal["learned", "relative_session", "relative_time", "none"] = "learned"
    max_sessions: int = 512  # learned positions; later sessions share the last one
    # mup: multipliers relative to the base shape keep one learning rate best for all widths and
    # depths (`ligr_jax.nn.transfer`); at the base shape nothing differs.
    parametrization: Literal["standard", "mup"] = "standard"
    base_width: int = 64
    base_depth: int = 2
    base_set_depth: int = 1
    base_heads: int = 2
    table_width: int = 32  # E, for features that do not say otherwise
    table_init: float = 0.0  # standard deviation of fresh table rows; 0 for E^-1/2
    dropout: float = 0.0  # on token inputs and sub-layer outputs, in training
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations and matmuls
    remat: bool = False  # recompute a block's activations in the backward pass
    unroll: Literal["auto", "yes", "no"] = "auto"  # auto: layers unrolled on CPU, scanned elsewhere
    implementation: Literal["auto", "dense", "blocked", "gpu", "tpu"] = "auto"  # of attention

    def __post_init__(self) -> None:
        bases = ("base_width", "base_depth", "base_set_depth", "base_heads")
        for name in ("width", "heads", "max_sessions", "table_width", *bases):
            _require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be >= 1")
        for name in ("depth", "set_depth"):
            _require(getattr(self, name) >= 0, f"model.{name}={getattr(self, name)} must be >= 0")
        _require(
            self.width % self.heads == 0,
            f"model.width={self.width} is not divisible by model.heads={self.heads}; "
            "change one of the two",
        )
        _require(
            self.base_width % self.base_heads == 0,
            f"model.base_width={self.base_width} is not divisible by "
            f"model.base_heads={self.base_heads}; change one of the two",
        )
        _require(bool(self.actions), "model.actions is empty: name at least one action to predict")
        _require(
            not self.prior or len(self.prior) == len(self.actions),
            f"model.prior has {len(self.prior)} rates for {len(self.actions)} model.actions",
        )
        _require(
            all(0 < p < 1 for p in self.prior), f"model.prior={self.prior} must lie inside (0, 1)"
        )
        _require(self.table_init >= 0, f"model.table_init={self.table_init} must be >= 0")
        _require(0 <= self.dropout < 1, f"model.dropout={self.dropout} must be in [0, 1)")
        _require(self.ffn_factor > 0, f"model.ffn_factor={self.ffn_factor} must be > 0")
        _require(
            self.depth + self.set_depth > 0,
            "model.depth=0 and model.set_depth=0 leave no layer; set one of them",
        )
        self._check_shared_tables()

    def table_of(self, name: str) -> str:
        """The table that feature `name` looks up."""
        return self.features[name].table or name

    @property
    def tables(self) -> dict[str, TableShape]:
        """Every table by name, in sorted order: its rows and its width."""
        shapes = {self.table_of(n): self._shape(f) for n, f in self.features.items() if f.has_table}
        return dict(sorted(shapes.items()))

    def _shape(self, feature: Feature) -> TableShape:
        return TableShape(feature.rows, feature.width or self.table_width)

    def _check_shared_tables(self) -> None:
        """Features of one table must mean the same by its rows."""
        first: dict[str, str] = {}
        for name, feature in self.features.items():
            if not feature.has_table:
                continue
            table = self.table_of(name)
            other = first.setdefault(table, name)
            ours, theirs = self._sharing(name), self._sharing(other)
            for key, value in ours.items():
                _require(
                    value == theirs[key],
                    f"model.features.{name} and model.features.{other} share the table '{table}' "
                    f"but have {key}={value} and {theirs[key]}; make them equal, or change "
                    f"model.features.{name}.table",
                )

    def _sharing(self, name: str) -> dict[str, Any]:
        """What features of one table have to have in common."""
        feature = self.features[name]
        shape = self._shape(feature)._asdict()
        # How buckets would look ids up does not matter.
        lookup = {"lookup": feature.lookup} if feature.kind == "categorical" else {}
        return {"kind": feature.kind, **shape, **lookup}

    @property
    def ffn_width(self) -> int:
        """F, rounded to a multiple of 8."""
        return max(8, round(self.ffn_factor * self.width / 8) * 8)


@dataclass(frozen=True)
class DataConfig:
    """Which prepared data, how it is cut into rows."""

    dir: str = ""
    digest: str = ""  # of the manifest, filled in: two runs on equal data have equal digests
    seq_len: int = 256  # T: tokens of a row, two per impression
    context: float = 0.5  # share of a row kept for earlier history where a member has more
    fraction: float = 1.0  # of the members, for data scaling
    workers: int = 0  # loader processes; 0 reads in threads of this process

    def __post_init__(self) -> None:
        _require(
            self.seq_len >= 4 and self.seq_len % 2 == 0,
            f"data.seq_len={self.seq_len} must be even and >= 4: an impression is two tokens",
        )
        _require(0 <= self.context < 1, f"data.context={self.context} must be in [0, 1)")
        _require(0 < self.fraction <= 1, f"data.fraction={self.fraction} must be in (0, 1]")
        _require(self.workers >= 0, f"data.workers={self.workers} must be >= 0")


@dataclass(frozen=True)
class OptimConfig:
    """Separate optimizers and rates for tables and dense weights (LiGR A.1)."""

    batch: int = 32  # rows of a global batch
    accumulate: int = 1  # micro-batches of a step
    dense_lr: float = 1e-3
    table_lr: float = 1e-2
    warmup: float = 0.05  # share of the steps
    decay: Literal["cosine", "wsd", "none"] = "cosine"  # wsd: flat, then linear over the last fifth
    weight_decay: float = 0.0  # decoupled, dense matrices only
    # Of tables. All but adamw move only the rows of a batch; adamw reads all of them every step.
    table_optimizer: Literal["rowwise_adagrad", "adagrad", "lazy_adam", "sgd", "adamw"] = (
        "rowwise_adagrad"
    )
    table_weight_decay: float = 0.0  # decoupled, of the rows moved
    clip: float = 1.0  # global gradient norm; 0 for none
    rank_weight: float = 0.1  # lambda of the Attention Rank loss

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate"):
            _require(getattr(self, name) >= 1, f"optim.{name}={getattr(self, name)} must be >= 1")
        for name in (
            "dense_lr",
            "table_lr",
            "weight_decay",
            "table_weight_decay",
            "clip",
            "rank_weight",
        ):
            _require(getattr(self, name) >= 0, f"optim.{name}={getattr(self, name)} must be >= 0")
        _require(
            self.batch % self.accumulate == 0,
            f"optim.batch={self.batch} is not divisible by optim.accumulate={self.accumulate}",
        )
        _require(0 <= self.warmup < 1, f"optim.warmup={self.warmup} must be in [0, 1)")


@dataclass(frozen=True)
class MeshConfig:
    """Which devices share the work, and how the tables lie on them."""

    data: int = 0  # groups of devices, each with a copy of the tables; 0: what devices are left
    model: int = 1  # devices of a group: they share its tables
    fsdp: bool = False  # dense weights and Adam's moments split over `data`, gathered for a step
    # Of tables: auto (the planner's choice), replicated, column, row or table; and of single ones,
    # e.g. auto,item_id:column,member_id:row
    placement: tuple[str, ...] = ("auto",)
    table_gib: float = 0.0  # memory of a device for tables; 0: three fifths of what it has

    def __post_init__(self) -> None:
        _require(self.data >= 0, f"mesh.data={self.data} must be >= 0")
        _require(self.model >= 1, f"mesh.model={self.model} must be >= 1")
        _require(self.table_gib >= 0, f"mesh.table_gib={self.table_gib} must be >= 0")
        for entry in self.placement:
            word = entry.rpartition(":")[2]
            _require(
                word in PLACEMENTS,
                f"mesh.placement={entry}: choose one of {', '.join(PLACEMENTS)}, alone or "
                "after the name of a table and a colon",
            )


@dataclass(frozen=True)
class TrainConfig:
    """How long, how often, and when to give up."""

    seed: int = 0
    epochs: float = 1.0
    flops: float = 0.0  # a budget in counted FLOPs (flops_model), instead of epochs
    steps: int = 0  # instead of both
    log_every: int = 20
    eval_every: int = 0  # 0: only at the end
    checkpoint_every: int = 200
    keep: int = 2  # newest checkpoints kept
    max_bad_steps: int = 10  # non-finite steps in a row after which the run stops

    def __post_init__(self) -> None:
        _require(self.epochs > 0, f"train.epochs={self.epochs} must be > 0")
        _require(self.flops >= 0, f"train.flops={self.flops} must be >= 0")
        _require(
            not (self.flops and self.steps),
            f"train.flops={self.flops:g} and train.steps={self.steps} both say how long to train; "
            "set one of them to 0",
        )
        for name in ("steps", "eval_every"):
            _require(getattr(self, name) >= 0, f"train.{name}={getattr(self, name)} must be >= 0")
        for name in ("log_every", "checkpoint_every", "keep", "max_bad_steps"):
            _require(getattr(self, name) >= 1, f"train.{name}={getattr(self, name)} must be >= 1")


@dataclass(frozen=True)
class EvalConfig:
    """What a finished run is measured on."""

    splits: tuple[str, ...] = ("validation", "test")
    batch: int = 0  # rows; 0 for optim.batch
    cold_below: int = 5  # an item or member with fewer train impressions is a cold start

    def __post_init__(self) -> None:
        valid = ("train", "validation", "test")
        unknown = [s for s in self.splits if s not in valid]
        _require(not unknown, f"eval.splits holds {unknown}; choose from {valid}")


@dataclass(frozen=True)
class TrackConfig:
    """Where metrics are mirrored; `metrics.jsonl` in the run directory is always written."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"  # auto: online only with a key
    project: str = "ligr"
    entity: str = ""
    group: str = ""


@dataclass(frozen=True)
class Config:
    """The whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    track: TrackConfig = field(default_factory=TrackConfig)


# Where a run computes and how it is watched does not change what it computes.
_NOT_IN_DIGEST = ("data.dir", "data.workers", "mesh.", "track.")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> plain value, in field order; tuples stay tuples."""
    flat: dict[str, Any] = {}
    for name, value in _children(config):
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def digest(config: Config) -> str:
    """Twelve hex digits over all that changes a run's numbers: the name of its directory."""
    flat = {k: v for k, v in flatten(config).items() if not k.startswith(_NOT_IN_DIGEST)}
    text = json.dumps(flat, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted names whose values differ and matter, with both values (None where absent)."""
    flat_a, flat_b = flatten(a), flatten(b)
    return {
        k: (flat_a.get(k), flat_b.get(k))
        for k in flat_a | flat_b
        if flat_a.get(k) != flat_b.get(k) and not k.startswith(_NOT_IN_DIGEST)
    }


def to_json(config: Config) -> str:
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`."""
    return _build(Config, json.loads(text))


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Applies `dotted.name=value` assignments.

    Values are read by the field's type; tuples are comma-separated. A mapping takes a subset of its
    keys (`model.features=item_id,actor_id`), or one field of one (`model.features.tag.rows=9`).
    All assignments are applied before the result is checked, so their order does not matter.

    Raises:
        ConfigError: unknown name (the nearest are shown), ill-typed value, impossible combination.
    """
    tree = dataclasses.asdict(config)
    pairs = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        _require(bool(equals), f"'{assignment}' is not name=value, e.g. model.depth=4")
        pairs.append((name.lstrip("-"), text))
    # Deepest names first: a field of an entry is set before a subset may leave the entry out.
    for name, text in sorted(pairs, key=lambda pair: -pair[0].count(".")):
        _assign(config, tree, name, text)
    return _build(Config, tree)


def _assign(config: Config, tree: dict[str, Any], name: str, text: str) -> None:
    node, owner, path = tree, config, name.split(".")
    for part in path[:-1]:
        if part not in node or not isinstance(node[part], dict):
            raise _unknown(name, config)
        node = node[part]
        owner = owner[part] if isinstance(owner, Mapping) else getattr(owner, part)
    leaf = path[-1]
    if leaf not in node or isinstance(owner, Mapping):
        raise _unknown(name, config)
    if isinstance(node[leaf], dict):  # a mapping: keep the named keys
        _require(not dataclasses.is_dataclass(getattr(owner, leaf)), f"{name} is a group of fields")
        keys = [k for k in text.split(",") if k]
        missing = [k for k in keys if k not in node[leaf]]
        _require(not missing, f"{name}={text}: no {missing}; there are {list(node[leaf])}")
        node[leaf] = {k: node[leaf][k] for k in keys}
    else:
        node[leaf] = _parse(text, typing.get_type_hints(type(owner))[leaf], name)


def _unknown(name: str, config: Config) -> ConfigError:
    names = list(flatten(config))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    leaf = name.rpartition(".")[2]
    near += [n for n in names if n.rpartition(".")[2] == leaf and n not in near]
    return ConfigError(f"unknown name '{name}'; nearest: {', '.join(near) or ', '.join(names)}")


def _parse(text: str, kind: Any, name: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        shown = ", ".join(c or "''" for c in choices)
        _require(text in choices, f"{name}={text}: choose one of {shown}")
        return text
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_parse(part, item, name) for part in text.split(",") if part)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return int(text) if text.lstrip("-").isdigit() else _whole(float(text))
        return kind(text)
    except (ValueError, KeyError, OverflowError) as e:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, kind)
        raise ConfigError(f"{name}={text}: expected {wanted}") from e


def _whole(value: float) -> int:  # 1e6 is a fine way to write an integer
    if value != int(value):
        raise ValueError(value)
    return int(value)


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return node.items()
    return ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))


def _build(kind: Any, raw: Any) -> Any:
    """Nested plain values (from `asdict` or JSON) -> the dataclass, tuples restored."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = [k for k in raw if k not in hints]
        _require(not unknown, f"{kind.__name__} has no fields {unknown}")  # type: ignore[union-attr]
        return kind(**{k: _build(hints[k], v) for k, v in raw.items()})  # type: ignore[operator]
    origin = typing.get_origin(kind)
    if origin is tuple:
        return tuple(raw)
    if origin is not None and origin is not Literal and not isinstance(origin, types.UnionType):
        item = typing.get_args(kind)[1]
        return {k: _build(item, v) for k, v in raw.items()}
    return raw
