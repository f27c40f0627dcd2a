"""Configuration of a model: inputs, layers and ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ligr_jax.config.errors import require
from ligr_jax.config.features import Feature, TableShape
from ligr_jax.config.head import HeadConfig, action_groups
from ligr_jax.config.hyformer import HyFormerConfig
from ligr_jax.config.lirank import LiRankConfig
from ligr_jax.config.lists import join_list, value_text
from ligr_jax.config.mixers import RankMixerConfig, TokenMixerConfig
from ligr_jax.config.onetrans import OneTransConfig
from ligr_jax.config.two_stream import TwoStreamConfig
from ligr_jax.config.ultra import UltraConfig
from ligr_jax.config.wukong import WukongConfig

# Kinds with a history stream and a candidate stream (`ligr_jax.nn.two_stream`).
TWO_STREAM_KINDS = ("hyformer", "ligr_streams", "onetrans", "rankmixer", "tokenmixer", "ultra")
# Those that mix tokens; their last candidate token is read from the history.
_MIXERS = ("rankmixer", "tokenmixer")
# Those whose history tokens may see a window, which depends on the layer.
_WINDOWED_KINDS = ("ligr_streams", "onetrans")
# Those that can encode the history once per request (`ligr_jax.nn.recompute`).
_RECOMPUTED_KINDS = ("onetrans",)


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
        self._check_kind()
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

    def _check_kind(self) -> None:
        """Raise `ConfigError` for fields that do not apply to the kind of model."""
        require(
            self.attention_length >= 0 and (self.kind == "hstu" or not self.attention_length),
            f"model.attention_length={self.attention_length} must be >= 0 for model.kind=hstu and "
            f"0 for other kinds, got model.kind={self.kind}",
        )
        if self.kind in TWO_STREAM_KINDS:
            self._check_streams()
        self._check_actions_as()
        if self.kind in ("ligr", "ligr_streams"):
            return
        for name in ("ffn", "gate", "attention", "residual_scale"):
            value, default = getattr(self, name), getattr(ModelConfig, name)
            require(
                value == default,
                f"model.{name}={value_text(value)} applies to LiGR's block, which "
                f"model.kind={self.kind} does not have; set it to {value_text(default)}",
            )
        if self.kind == "wukong":
            require(
                self.depth >= 1 and self.set_depth == 0,
                f"model.kind=wukong has one kind of layer, got model.depth={self.depth} and "
                f"model.set_depth={self.set_depth}; set depth >= 1 and set_depth=0",
            )
            require(
                self.parametrization == "standard",
                f"model.parametrization={self.parametrization} has no rules for "
                "model.kind=wukong; set it to standard and tune optim.dense_lr at each size",
            )
            require(
                not self.wukong.dual_path
                or any(f.kind != "numeric" and f.is_item for f in self.features.values()),
                "model.wukong.dual_path=true removes numeric features from the layers, and there "
                "is no other item feature; set it to false or add a feature",
            )
        if self.kind == "lirank":
            self._check_lirank()

    def _check_actions_as(self) -> None:
        """Raise `ConfigError` for action values where there are no historical layers of LiGR."""
        if self.actions_as == "tokens":
            return
        require(
            self.kind == "ligr" and self.depth > 0 and not self.next_item,
            f"model.actions_as={self.actions_as} needs historical layers of LiGR and has no action "
            f"tokens that predict the next item, got model.kind={self.kind}, model.depth="
            f"{self.depth}, model.next_item={self.next_item}; set model.actions_as=tokens",
        )

    def _check_streams(self) -> None:
        """Raise `ConfigError` for fields that do not apply to two-stream models."""
        require(
            self.depth >= 1 and self.set_depth == 0,
            f"model.kind={self.kind} has no set-wise layers, got model.depth={self.depth} and "
            f"model.set_depth={self.set_depth}; set depth >= 1 and set_depth=0",
        )
        if self.kind == "ligr_streams":
            require(
                self.attention == "softmax"
                and self.ffn != "none"
                and self.gate in ("sigmoid", "none"),
                f"model.kind=ligr_streams has softmax attention, a feed-forward layer and output "
                f"gates, got model.attention={self.attention}, model.ffn={self.ffn} and "
                f"model.gate={self.gate}",
            )
        if self.kind == "ultra":
            self._check_ultra()
        if self.kind in _MIXERS:
            self._check_mixer()
        if self.kind == "hyformer":
            self._check_hyformer()
        require(
            self.kind == "hyformer" or self.streams.queries == TwoStreamConfig.queries,
            f"model.streams.queries={self.streams.queries}: model.kind={self.kind} has no queries; "
            f"set it to {TwoStreamConfig.queries}, or model.kind=hyformer",
        )
        require(
            self.streams.history != "recompute" or self.kind in _RECOMPUTED_KINDS,
            f"model.kind={self.kind} has no form with model.streams.history=recompute; set history "
            f"to causal, or set model.kind={' or '.join(_RECOMPUTED_KINDS)}",
        )
        windows = self.streams.layer_windows(self.depth)
        require(
            not windows or self.kind in _WINDOWED_KINDS,
            f"model.kind={self.kind} has no windows of layers; leave model.streams.windows empty, "
            f"or set model.kind={' or '.join(_WINDOWED_KINDS)}",
        )
        require(
            len(windows) in (0, self.depth),
            f"model.streams.windows={join_list(windows)} has {len(windows)} windows for "
            f"model.depth={self.depth}; give one per layer",
        )
        require(
            len(self.streams.groups) in (0, self.feature_tokens),
            f"model.streams.groups has {len(self.streams.groups)} groups for {self.feature_tokens} "
            f"of model.streams.tokens={self.streams.tokens} that read features; give one group for "
            "each of them",
        )
        named = [name for group in self.streams.grouped_features for name in group]
        items = sorted(n for n, f in self.features.items() if f.is_item)
        require(
            not self.streams.groups or not self.features or sorted(named) == items,
            f"model.streams.groups={join_list(self.streams.groups)} must name every item feature "
            f"once: {join_list(items)}",
        )

    def _check_mixer(self) -> None:
        tokens, mixer = self.streams.tokens, self.tokenmixer
        require(
            self.width % tokens == 0,
            f"model.width={self.width} is not divisible by model.streams.tokens={tokens}, the "
            f"heads of token mixing in model.kind={self.kind}; change one of the two",
        )
        require(
            self.feature_tokens >= 1,
            f"model.streams.tokens={tokens} leaves no token for features in model.kind={self.kind};"
            f" raise it to {tokens - self.feature_tokens + 1} or more",
        )
        require(
            self.streams.history == "causal",
            f"model.streams.history={self.streams.history}: history tokens of model.kind="
            f"{self.kind} do not see each other; set it to causal",
        )
        require(
            self.rankmixer.norm == "pre"
            or self.parametrization == "standard"
            or self.depth == self.base_depth,
            f"model.rankmixer.norm=post has no rules for model.parametrization=mup in depth; set "
            f"it to pre, or model.base_depth={self.depth}",
        )
        require(
            self.ffn_width % mixer.experts == 0,
            f"model.tokenmixer.experts={mixer.experts} does not divide the feed-forward width "
            f"{self.ffn_width}; change it or model.ffn_factor",
        )

    def _check_hyformer(self) -> None:
        tokens, queries = self.streams.tokens, self.streams.queries
        require(
            self.width % (tokens + queries) == 0,
            f"model.width={self.width} is not divisible by model.streams.tokens={tokens} plus "
            f"model.streams.queries={queries}, which token mixing needs; change one of them",
        )

    def _check_ultra(self) -> None:
        for name in ("tokens", "tokenizer", "normalize_tokens"):
            value, default = (getattr(of, name) for of in (self.streams, TwoStreamConfig))
            require(
                value == default,
                f"model.streams.{name}={value_text(value)} applies to models of several candidate "
                "tokens, and model.kind=ultra has one, which is the item token; set it to "
                f"{value_text(default)}",
            )
        require(
            self.ultra.truncated_layers < self.depth,
            f"model.ultra.truncated_layers={self.ultra.truncated_layers} leaves no layer that sees "
            f"all history; set it below model.depth={self.depth}",
        )

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

    def _check_lirank(self) -> None:
        variant, head, wide = self.lirank.variant, self.head, self.lirank.wide
        of_heads = [name for name, f in self.features.items() if f.late or f.post]
        require(
            not of_heads and not head.cross_layers,
            f"model.kind=lirank has no heads that read features: {join_list(of_heads)} with late "
            f"or post=true, and model.head.cross_layers={head.cross_layers}, do not apply; set "
            "them to false and 0",
        )
        require(
            variant == "feed" or head.kind in ("linear", "mlp"),
            f"model.lirank.variant={variant} has layers for each group of actions and no shared "
            f"experts; set model.head.kind=mlp or linear, not {head.kind}",
        )
        require(
            self.parametrization == "standard",
            f"model.parametrization={self.parametrization} has no rules for model.kind=lirank; "
            "set it to standard",
        )
        if wide:
            feature = self.features.get(wide)
            require(
                feature is not None and feature.has_table and feature.is_item,
                f"model.lirank.wide={wide} is not an item feature with a table; choose another one",
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
                f"model.lirank.wide={wide}: {','.join(sharing)} shares the table '{table}' and "
                f"would use its effects as an embedding; change model.features.{wide}.table",
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
        return self.streams.tokens - (self.kind in _MIXERS) - self.has_global_token

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
