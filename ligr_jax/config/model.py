"""The shape of a model: its inputs, its layers, its ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ligr_jax.config.errors import require
from ligr_jax.config.features import Feature, TableShape
from ligr_jax.config.head import HeadConfig, action_groups
from ligr_jax.config.lirank import LiRankConfig
from ligr_jax.config.lists import join_list
from ligr_jax.config.wukong import WukongConfig


@dataclass(frozen=True)
class ModelConfig:
    """A model: its inputs and outputs, which all kinds share, and the layers of its kind.

    Below `kind`, names without a group of their own are LiGR's (LiGR 3.2, A.1): two stacks of gated
    blocks and their ablations. Rivals read those that mean the same for them.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    actions: tuple[str, ...] = ("click",)
    prior: tuple[float, ...] = ()  # base rate per action: where the output biases start
    kind: Literal["ligr", "hstu", "wukong", "lirank"] = "ligr"  # `ligr_jax.nn.models`
    width: int = 64  # D
    depth: int = 2  # historical layers; all of Wukong's
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
    # depths (`ligr_jax.nn.mup`); at the base shape nothing differs.
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
    head: HeadConfig = field(default_factory=HeadConfig)
    lirank: LiRankConfig = field(default_factory=LiRankConfig)
    wukong: WukongConfig = field(default_factory=WukongConfig)

    def __post_init__(self) -> None:
        bases = ("base_width", "base_depth", "base_set_depth", "base_heads")
        for name in ("width", "heads", "max_sessions", "table_width", *bases):
            require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be >= 1")
        for name in ("depth", "set_depth"):
            require(getattr(self, name) >= 0, f"model.{name}={getattr(self, name)} must be >= 0")
        require(
            self.width % self.heads == 0,
            f"model.width={self.width} is not divisible by model.heads={self.heads}; "
            "change one of the two",
        )
        require(
            self.base_width % self.base_heads == 0,
            f"model.base_width={self.base_width} is not divisible by "
            f"model.base_heads={self.base_heads}; change one of the two",
        )
        require(bool(self.actions), "model.actions is empty: name at least one action to predict")
        twice = sorted({a for a in self.actions if self.actions.count(a) > 1})
        require(not twice, f"model.actions={join_list(self.actions)}: {twice} more than once")
        require(
            not self.prior or len(self.prior) == len(self.actions),
            f"model.prior={join_list(self.prior)} has {len(self.prior)} rates for "
            f"{len(self.actions)} model.actions; give one for each of {join_list(self.actions)}",
        )
        require(
            all(0 < p < 1 for p in self.prior), f"model.prior={self.prior} must lie inside (0, 1)"
        )
        require(self.table_init >= 0, f"model.table_init={self.table_init} must be >= 0")
        require(0 <= self.dropout < 1, f"model.dropout={self.dropout} must be in [0, 1)")
        require(self.ffn_factor > 0, f"model.ffn_factor={self.ffn_factor} must be > 0")
        require(
            self.depth + self.set_depth > 0,
            "model.depth=0 and model.set_depth=0 leave no layer; set one of them",
        )
        self._check_kind()
        self._check_head()
        self._check_shared_tables()

    def table_of(self, name: str) -> str:
        """The table that feature `name` looks up."""
        return self.features[name].table or name

    @property
    def tables(self) -> dict[str, TableShape]:
        """Every table by name, in sorted order: its rows and its width."""
        shapes = {self.table_of(n): self._shape(f) for n, f in self.features.items() if f.has_table}
        return dict(sorted(shapes.items()))

    @property
    def effects(self) -> dict[str, int]:
        """By table, how many of its last columns are added to logits: they start as zero."""
        wide = self.lirank.wide if self.kind == "lirank" else ""
        return {self.table_of(wide): len(self.actions)} if wide else {}

    def _shape(self, feature: Feature) -> TableShape:
        return TableShape(feature.rows, feature.width or self.table_width)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the actions that share a tower, by tower."""
        feed = self.kind == "lirank" and self.lirank.variant == "feed"
        return action_groups(self.actions, self.head.groups, feed)

    def _check_kind(self) -> None:
        """What is of LiGR alone must not seem to change a rival."""
        if self.kind == "ligr":
            return
        for name in ("ffn", "gate", "attention"):
            value, default = getattr(self, name), getattr(ModelConfig, name)
            require(
                value == default,
                f"model.{name}={value} is of LiGR's block, which model.kind={self.kind} does not "
                f"have; leave it at {default}",
            )
        if self.kind == "wukong":
            require(
                self.depth >= 1 and self.set_depth == 0,
                f"model.kind=wukong has layers of one kind, got model.depth={self.depth} and "
                f"model.set_depth={self.set_depth}; set depth >= 1 and set_depth=0",
            )
            require(
                self.parametrization == "standard",
                f"model.parametrization={self.parametrization} has no rules for "
                "model.kind=wukong; set it to standard and tune optim.dense_lr at each size",
            )
            require(
                not self.wukong.dual_path
                or any(f.kind != "numeric" and not f.outcome for f in self.features.values()),
                "model.wukong.dual_path=True takes numbers out of the layers, and no other item "
                "feature is left for them; set it to False or declare one",
            )
        if self.kind == "lirank":
            self._check_lirank()

    def _check_head(self) -> None:
        head = self.head
        action_groups(self.actions, head.groups, feed=False)
        for name in head.calibration_features:
            require(
                name in self.features and not self.features[name].outcome,
                f"model.head.calibration_features: '{name}' is no item feature of this model",
            )
        require(
            self.parametrization == "standard" or head == HeadConfig(),
            f"model.head.kind={head.kind}, model.head.calibration={head.calibration}: "
            "model.parametrization=mup has rules for a plain linear head alone; set it to standard",
        )

    def _check_lirank(self) -> None:
        variant, head, wide = self.lirank.variant, self.head, self.lirank.wide
        require(
            variant == "feed" or head.kind in ("linear", "mlp"),
            f"model.lirank.variant={variant} has layers for each group of actions, no experts that "
            f"they share; set model.head.kind=mlp or linear, not {head.kind}",
        )
        require(
            self.parametrization == "standard",
            f"model.parametrization={self.parametrization} has no rules for model.kind=lirank; "
            "set it to standard",
        )
        if wide:
            feature = self.features.get(wide)
            require(
                feature is not None and feature.has_table and not feature.outcome,
                f"model.lirank.wide={wide} is no item feature with a table",
            )
            require(
                self.tables[self.table_of(wide)].width > len(self.actions),
                f"model.lirank.wide={wide}: its last {len(self.actions)} columns are effects, so "
                "its table must be wider; raise model.table_width",
            )
            table = self.table_of(wide)
            others = [n for n, f in self.features.items() if f.has_table and n != wide]
            sharing = [n for n in others if self.table_of(n) == table]
            require(
                not sharing,
                f"model.lirank.wide={wide}: {','.join(sharing)} would read its effects as an "
                f"embedding, sharing the table '{table}'; change model.features.{wide}.table",
            )

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
                require(
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
