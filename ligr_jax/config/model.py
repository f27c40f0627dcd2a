"""Configuration of a model: inputs, layers and ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ligr_jax.config.errors import require
from ligr_jax.config.features import Feature, TableShape
from ligr_jax.config.head import HeadConfig, action_groups
from ligr_jax.config.hyformer import HyFormerConfig
from ligr_jax.config.kind_checks import MIXERS, check_kind
from ligr_jax.config.lirank import LiRankConfig
from ligr_jax.config.lists import join_list
from ligr_jax.config.mixers import RankMixerConfig, TokenMixerConfig
from ligr_jax.config.onetrans import OneTransConfig
from ligr_jax.config.two_stream import TwoStreamConfig
from ligr_jax.config.ultra import UltraConfig
from ligr_jax.config.wukong import WukongConfig


@dataclass(frozen=True)
class ModelConfig:
    """A model: its inputs and outputs, which all kinds share, and the layers of its kind.

    The fields from `width` to `implementation` configure LiGR (LiGR 3.2, A.1), which is two stacks
    of gated blocks, and its ablations. The other kinds use the fields that apply to them.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    """Features by name. A name is the name of a column of the data."""
    actions: tuple[str, ...] = ("click",)
    """Actions that the model predicts, one task each."""
    late_actions: tuple[str, ...] = ()
    """Actions that are targets and never inputs of action tokens, because their labels become known
    at an unknown later time. Those of the data are required."""
    prior: tuple[float, ...] = ()
    """Base rate of each action, which initializes the output biases."""
    kind: Literal[
        "ligr",
        "ligr_streams",
        "hyformer",
        "onetrans",
        "rankmixer",
        "tokenmixer",
        "ultra",
        "hstu",
        "wukong",
        "lirank",
    ] = "ligr"
    """Architecture (`ligr_jax.nn.models`)."""
    width: int = 64
    """D, width of the model."""
    depth: int = 2
    """Number of historical layers, or of all layers of Wukong."""
    set_depth: int = 1
    """Number of in-session set-wise layers, which follow the historical layers."""
    heads: int = 2
    """H, attention heads; each has width D / H."""
    ffn: Literal["gelu", "swiglu", "none"] = "gelu"
    """Feed-forward layer of a block."""
    ffn_factor: float = 4.0
    """Hidden width F of the feed-forward layer, as a multiple of D."""
    gate: Literal["sigmoid", "cadet", "both", "none"] = "sigmoid"
    """Gates: `sigmoid` are LiGR's of the residual branches, `cadet` those of the input, the queries
    and the keys of attention (`ligr_jax.nn.self_gating`)."""
    residual_scale: bool = False
    """Whether each residual branch of LiGR has a learned factor that starts at 1 (Feed-SR)."""
    attention: Literal["softmax", "silu", "sigmoid"] = "softmax"
    """Activation of attention scores."""
    attention_length: int = 0
    """HSTU: sums over keys are divided by this number, in the published code the padded length of a
    row (`data.seq_len`); 0 for the number of keys that a token sees (`ligr_jax.nn.hstu`)."""
    mask: Literal["session", "causal", "session_lag"] = "session"
    """Visible history: `session` is all earlier sessions, `causal` all earlier impressions, and
    `session_lag` all earlier sessions except the latest (`ligr_jax.ops.masks`)."""
    action_token: Literal["actions", "actions_and_item"] = "actions"
    """Input of an action token: the actions, which must find their item by attention (as in the
    paper), or the actions and the item, which is better for small training budgets."""
    actions_as: Literal["tokens", "values", "late_values"] = "tokens"
    """How LiGR's historical layers read actions: as `tokens` between the items, as `values` of the
    items in every layer (AttnMVP, `ligr_jax.nn.action_values`), or as the values of one attention
    after the layers (AttnLFA, `ligr_jax.nn.late_actions`). The last two have one token per
    impression instead of two."""
    position: Literal["learned", "relative_session", "relative_time", "none"] = "learned"
    """Position encoding: learned embeddings of the session number, or a relative attention bias."""
    max_sessions: int = 512
    """Number of learned positions; later sessions share the last position."""
    parametrization: Literal["standard", "mup"] = "standard"
    """`mup` applies multipliers relative to the base shape, so that the best learning rate does not
    depend on width and depth (`ligr_jax.nn.mup`). At the base shape both are equal."""
    base_width: int = 64
    """Width of the base shape of muP."""
    base_depth: int = 2
    """Historical layers of the base shape of muP."""
    base_set_depth: int = 1
    """Set-wise layers of the base shape of muP."""
    base_heads: int = 2
    """Heads of the base shape of muP."""
    table_width: int = 32
    """E, width of a table whose feature does not set `width`."""
    table_init: float = 0.0
    """Standard deviation of initial table rows; 0 stands for E^-1/2."""
    dropout: float = 0.0
    """Dropout rate of token inputs and sub-layer outputs in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products; parameters are float32."""
    remat: bool = False
    """Whether the backward pass recomputes the activations of a block, which saves memory."""
    unroll: Literal["auto", "yes", "no"] = "auto"
    """Whether layers are unrolled instead of scanned; `auto` unrolls on CPU."""
    implementation: Literal["auto", "dense", "blocked", "gpu", "tpu"] = "auto"
    """Implementation of attention."""
    next_item: str = ""
    """Categorical feature whose value at the next impression is predicted as well, e.g. `item_id`:
    a full softmax over its table, which needs `optim.table_optimizer=adamw`
    (`ligr_jax.nn.next_item`)."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Layers between the representation and the logits."""
    hyformer: HyFormerConfig = field(default_factory=HyFormerConfig)
    """Layers of `kind=hyformer`."""
    lirank: LiRankConfig = field(default_factory=LiRankConfig)
    """Layers of `kind=lirank`."""
    onetrans: OneTransConfig = field(default_factory=OneTransConfig)
    """Layers of `kind=onetrans`."""
    rankmixer: RankMixerConfig = field(default_factory=RankMixerConfig)
    """Layers of `kind=rankmixer`."""
    streams: TwoStreamConfig = field(default_factory=TwoStreamConfig)
    """Streams of the two-stream kinds (`ligr_jax.nn.two_stream`)."""
    tokenmixer: TokenMixerConfig = field(default_factory=TokenMixerConfig)
    """Layers of `kind=tokenmixer`."""
    ultra: UltraConfig = field(default_factory=UltraConfig)
    """Layers of `kind=ultra`."""
    wukong: WukongConfig = field(default_factory=WukongConfig)
    """Layers of `kind=wukong`."""

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
        repeated = sorted({a for a in self.actions if self.actions.count(a) > 1})
        require(
            not repeated,
            f"model.actions={join_list(self.actions)}: {repeated} more than once; keep one of each",
        )
        require(
            not self.prior or len(self.prior) == len(self.actions),
            f"model.prior={join_list(self.prior)} has {len(self.prior)} rates for "
            f"{len(self.actions)} model.actions; give one for each of {join_list(self.actions)}",
        )
        require(
            all(0 < p < 1 for p in self.prior), f"model.prior={self.prior} must be inside (0, 1)"
        )
        require(self.table_init >= 0, f"model.table_init={self.table_init} must be >= 0")
        require(0 <= self.dropout < 1, f"model.dropout={self.dropout} must be in [0, 1)")
        require(self.ffn_factor > 0, f"model.ffn_factor={self.ffn_factor} must be > 0")
        require(
            self.depth + self.set_depth > 0,
            "model.depth=0 and model.set_depth=0 leave no layer; raise one of them",
        )
        check_kind(self)
        self._check_head()
        self._check_next_item()
        self._check_shared_tables()

    def table_of(self, name: str) -> str:
        """Return the name of the table of a feature."""
        return self.features[name].table or name

    @property
    def tables(self) -> dict[str, TableShape]:
        """Shapes of all tables by name, in sorted order."""
        shapes = {self.table_of(n): self._shape(f) for n, f in self.features.items() if f.has_table}
        return dict(sorted(shapes.items()))

    @property
    def post_feature(self) -> str:
        """Name of the post feature; "" without one."""
        return next((name for name, f in self.features.items() if f.post), "")

    @property
    def post_rows(self) -> int:
        """Number of output layers of an action: the rows of the post feature, or 1."""
        return self.features[self.post_feature].rows if self.post_feature else 1

    @property
    def effects(self) -> dict[str, int]:
        """Number of last columns that are added to logits and start at zero, by table."""
        wide = self.lirank.wide if self.kind == "lirank" else ""
        return {self.table_of(wide): len(self.actions)} if wide else {}

    def _shape(self, feature: Feature) -> TableShape:
        return TableShape(feature.rows, feature.width or self.table_width)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the actions of each tower."""
        feed = self.kind == "lirank" and self.lirank.variant == "feed"
        return action_groups(self.actions, self.head.groups, feed)

    def _check_head(self) -> None:
        head = self.head
        action_groups(self.actions, head.groups, feed=False)
        for name in head.calibration_features:
            require(
                name in self.features and self.features[name].is_item,
                f"model.head.calibration_features: '{name}' is not an item feature of this model; "
                "choose a feature without outcome, late and post",
            )
        require(
            self.parametrization == "standard" or head == HeadConfig(),
            f"model.head.kind={head.kind}, model.head.calibration={head.calibration}: "
            "model.parametrization=mup supports only a plain linear head; set it to standard",
        )
        late = [name for name, feature in self.features.items() if feature.late]
        require(
            self.parametrization == "standard" or not late,
            f"model.features.{','.join(late)}.late=true has no rules for model.parametrization=mup:"
            " their widths do not grow with model.width; set it to standard",
        )
        posts = [name for name, feature in self.features.items() if feature.post]
        require(
            len(posts) <= 1,
            f"model.features: {join_list(posts)} have post=true, and the heads depend on at most "
            "one feature; keep one",
        )

    def _check_next_item(self) -> None:
        if not self.next_item:
            return
        feature = self.features.get(self.next_item)
        require(
            feature is not None
            and feature.kind == "categorical"
            and feature.has_table
            and not feature.combine,
            f"model.next_item={self.next_item} is not a categorical feature with one table row per "
            "impression; choose one, e.g. item_id",
        )
        require(
            self.kind in ("ligr", "hstu") and self.depth > 0,
            f"model.next_item={self.next_item} needs historical layers, got model.kind={self.kind} "
            f"and model.depth={self.depth}; set model.kind=ligr or hstu and model.depth >= 1",
        )

    def _check_shared_tables(self) -> None:
        """Raise `ConfigError` if features of one table use its rows in different ways."""
        first: dict[str, str] = {}
        for name, feature in self.features.items():
            if not feature.has_table:
                continue
            table = self.table_of(name)
            other = first.setdefault(table, name)
            shared = self._shared_properties(other)
            for key, value in self._shared_properties(name).items():
                require(
                    value == shared[key],
                    f"model.features.{name} and model.features.{other} share the table '{table}' "
                    f"but have {key}={value} and {shared[key]}; make them equal, or change "
                    f"model.features.{name}.table",
                )

    def _shared_properties(self, name: str) -> dict[str, Any]:
        """Return the properties that all features of a table must have in common."""
        feature = self.features[name]
        shape = self._shape(feature)._asdict()
        # The lookup of bucket features is not used.
        lookup = {"lookup": feature.lookup} if feature.kind == "categorical" else {}
        return {"kind": feature.kind, **shape, **lookup}

    @property
    def has_global_token(self) -> bool:
        """Whether the first candidate token is a projection of all item features."""
        return self.kind == "tokenmixer" and self.tokenmixer.global_token

    @property
    def feature_tokens(self) -> int:
        """Number of candidate tokens that the tokenizer makes from item features."""
        return self.streams.tokens - (self.kind in MIXERS) - self.has_global_token

    @property
    def gates_branches(self) -> bool:
        """Whether the residual branches of LiGR's block have gates."""
        return self.gate in ("sigmoid", "both")

    @property
    def gates_attention(self) -> bool:
        """Whether the input, the queries and the keys of attention have gates."""
        return self.gate in ("cadet", "both")

    @property
    def history_tokens(self) -> int:
        """Number of tokens of an impression in LiGR's historical layers."""
        return 2 if self.actions_as == "tokens" else 1

    @property
    def ffn_width(self) -> int:
        """F, width of the feed-forward layer, rounded to a multiple of 8."""
        return max(8, round(self.ffn_factor * self.width / 8) * 8)
