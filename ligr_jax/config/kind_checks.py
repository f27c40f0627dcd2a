"""Checks of a model's configuration that depend on its kind."""

from typing import TYPE_CHECKING

from ligr_jax.config.errors import require
from ligr_jax.config.lists import join_list, value_text
from ligr_jax.config.two_stream import TwoStreamConfig

if TYPE_CHECKING:
    from ligr_jax.config.model import ModelConfig

# Kinds with a history stream and a candidate stream (`ligr_jax.nn.two_stream`).
TWO_STREAM_KINDS = ("hyformer", "ligr_streams", "onetrans", "rankmixer", "tokenmixer", "ultra")
# Those that mix tokens; their last candidate token is read from the history.
MIXERS = ("rankmixer", "tokenmixer")
# Those whose history tokens may see a window, which depends on the layer.
_WINDOWED_KINDS = ("ligr_streams", "onetrans")
# Those that can encode the history once per request (`ligr_jax.nn.recompute`).
_RECOMPUTED_KINDS = ("onetrans",)


def check_kind(model: "ModelConfig") -> None:
    """Check the fields of a model that depend on its kind.

    Args:
        model: the model.

    Raises:
        ConfigError: a field does not apply to the kind, or its value does not fit the others.
    """
    require(
        model.attention_length >= 0 and (model.kind == "hstu" or not model.attention_length),
        f"model.attention_length={model.attention_length} must be >= 0 for model.kind=hstu and "
        f"0 for other kinds, got model.kind={model.kind}",
    )
    if model.kind in TWO_STREAM_KINDS:
        _check_streams(model)
    _check_actions_as(model)
    if model.kind in ("ligr", "ligr_streams"):
        return
    for name in ("ffn", "gate", "attention", "residual_scale"):
        value, default = getattr(model, name), getattr(type(model), name)
        require(
            value == default,
            f"model.{name}={value_text(value)} applies to LiGR's block, which "
            f"model.kind={model.kind} does not have; set it to {value_text(default)}",
        )
    if model.kind == "wukong":
        require(
            model.depth >= 1 and model.set_depth == 0,
            f"model.kind=wukong has one kind of layer, got model.depth={model.depth} and "
            f"model.set_depth={model.set_depth}; set depth >= 1 and set_depth=0",
        )
        require(
            model.parametrization == "standard",
            f"model.parametrization={model.parametrization} has no rules for "
            "model.kind=wukong; set it to standard and tune optim.dense_lr at each size",
        )
        require(
            not model.wukong.dual_path
            or any(f.kind != "numeric" and f.is_item for f in model.features.values()),
            "model.wukong.dual_path=true removes numeric features from the layers, and there "
            "is no other item feature; set it to false or add a feature",
        )
    if model.kind == "lirank":
        _check_lirank(model)


def _check_actions_as(model: "ModelConfig") -> None:
    """Raise `ConfigError` for action values where there are no historical layers of LiGR."""
    if model.actions_as == "tokens":
        return
    require(
        model.kind == "ligr" and model.depth > 0 and not model.next_item,
        f"model.actions_as={model.actions_as} needs historical layers of LiGR and has no action "
        f"tokens that predict the next item, got model.kind={model.kind}, model.depth="
        f"{model.depth}, model.next_item={model.next_item}; set model.actions_as=tokens",
    )


def _check_streams(model: "ModelConfig") -> None:
    """Raise `ConfigError` for fields that do not apply to two-stream models."""
    require(
        model.depth >= 1 and model.set_depth == 0,
        f"model.kind={model.kind} has no set-wise layers, got model.depth={model.depth} and "
        f"model.set_depth={model.set_depth}; set depth >= 1 and set_depth=0",
    )
    if model.kind == "ligr_streams":
        require(
            model.attention == "softmax"
            and model.ffn != "none"
            and model.gate in ("sigmoid", "none"),
            f"model.kind=ligr_streams has softmax attention, a feed-forward layer and output "
            f"gates, got model.attention={model.attention}, model.ffn={model.ffn} and "
            f"model.gate={model.gate}",
        )
    if model.kind == "ultra":
        _check_ultra(model)
    if model.kind in MIXERS:
        _check_mixer(model)
    if model.kind == "hyformer":
        _check_hyformer(model)
    require(
        model.kind == "hyformer" or model.streams.queries == TwoStreamConfig.queries,
        f"model.streams.queries={model.streams.queries}: model.kind={model.kind} has no queries; "
        f"set it to {TwoStreamConfig.queries}, or model.kind=hyformer",
    )
    require(
        model.streams.history != "recompute" or model.kind in _RECOMPUTED_KINDS,
        f"model.kind={model.kind} has no form with model.streams.history=recompute; set history "
        f"to causal, or set model.kind={' or '.join(_RECOMPUTED_KINDS)}",
    )
    windows = model.streams.layer_windows(model.depth)
    require(
        not windows or model.kind in _WINDOWED_KINDS,
        f"model.kind={model.kind} has no windows of layers; leave model.streams.windows empty, "
        f"or set model.kind={' or '.join(_WINDOWED_KINDS)}",
    )
    require(
        len(windows) in (0, model.depth),
        f"model.streams.windows={join_list(windows)} has {len(windows)} windows for "
        f"model.depth={model.depth}; give one per layer",
    )
    require(
        len(model.streams.groups) in (0, model.feature_tokens),
        f"model.streams.groups has {len(model.streams.groups)} groups for {model.feature_tokens} "
        f"of model.streams.tokens={model.streams.tokens} that read features; give one group for "
        "each of them",
    )
    named = [name for group in model.streams.grouped_features for name in group]
    items = sorted(n for n, f in model.features.items() if f.is_item)
    require(
        not model.streams.groups or not model.features or sorted(named) == items,
        f"model.streams.groups={join_list(model.streams.groups)} must name every item feature "
        f"once: {join_list(items)}",
    )


def _check_mixer(model: "ModelConfig") -> None:
    tokens, mixer = model.streams.tokens, model.tokenmixer
    require(
        model.width % tokens == 0,
        f"model.width={model.width} is not divisible by model.streams.tokens={tokens}, the "
        f"heads of token mixing in model.kind={model.kind}; change one of the two",
    )
    require(
        model.feature_tokens >= 1,
        f"model.streams.tokens={tokens} leaves no token for features in model.kind={model.kind};"
        f" raise it to {tokens - model.feature_tokens + 1} or more",
    )
    require(
        model.streams.history == "causal",
        f"model.streams.history={model.streams.history}: history tokens of model.kind="
        f"{model.kind} do not see each other; set it to causal",
    )
    require(
        model.rankmixer.norm == "pre"
        or model.parametrization == "standard"
        or model.depth == model.base_depth,
        f"model.rankmixer.norm=post has no rules for model.parametrization=mup in depth; set "
        f"it to pre, or model.base_depth={model.depth}",
    )
    require(
        model.ffn_width % mixer.experts == 0,
        f"model.tokenmixer.experts={mixer.experts} does not divide the feed-forward width "
        f"{model.ffn_width}; change it or model.ffn_factor",
    )


def _check_hyformer(model: "ModelConfig") -> None:
    tokens, queries = model.streams.tokens, model.streams.queries
    require(
        model.width % (tokens + queries) == 0,
        f"model.width={model.width} is not divisible by model.streams.tokens={tokens} plus "
        f"model.streams.queries={queries}, which token mixing needs; change one of them",
    )


def _check_ultra(model: "ModelConfig") -> None:
    for name in ("tokens", "tokenizer", "normalize_tokens"):
        value, default = (getattr(of, name) for of in (model.streams, TwoStreamConfig))
        require(
            value == default,
            f"model.streams.{name}={value_text(value)} applies to models of several candidate "
            "tokens, and model.kind=ultra has one, which is the item token; set it to "
            f"{value_text(default)}",
        )
    require(
        model.ultra.truncated_layers < model.depth,
        f"model.ultra.truncated_layers={model.ultra.truncated_layers} leaves no layer that sees "
        f"all history; set it below model.depth={model.depth}",
    )


def _check_lirank(model: "ModelConfig") -> None:
    variant, head, wide = model.lirank.variant, model.head, model.lirank.wide
    of_heads = [name for name, f in model.features.items() if f.late or f.post]
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
        model.parametrization == "standard",
        f"model.parametrization={model.parametrization} has no rules for model.kind=lirank; "
        "set it to standard",
    )
    if wide:
        feature = model.features.get(wide)
        require(
            feature is not None and feature.has_table and feature.is_item,
            f"model.lirank.wide={wide} is not an item feature with a table; choose another one",
        )
        require(
            model.tables[model.table_of(wide)].width > len(model.actions),
            f"model.lirank.wide={wide}: its last {len(model.actions)} columns are effects, so "
            "its table must be wider; raise model.table_width",
        )
        table = model.table_of(wide)
        others = [n for n, f in model.features.items() if f.has_table and n != wide]
        sharing = [n for n in others if model.table_of(n) == table]
        require(
            not sharing,
            f"model.lirank.wide={wide}: {','.join(sharing)} shares the table '{table}' and "
            f"would use its effects as an embedding; change model.features.{wide}.table",
        )
