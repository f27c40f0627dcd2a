"""muP: the learning rate that is best for a narrow, shallow model is best for a large one too.

With model.parametrization=mup, multipliers relative to a base shape make one step of Adam change
every layer by the same amount at every width D and depth L:

    m = D / base_width      k = K / K_base, with K = D / heads
    l = depth / base_depth for the historical layers, set_depth / base_set_depth for the set-wise

At the base shape all of them are 1, and the model equals that of `standard`.

    parameter                      initial std. dev. in the forward pass    rate    epsilon
    input projections [in, D]      in^-1/2           unscaled               1       1 / m
    action embeddings [.., D]      base_width^-1/2   unscaled               1       1 / m
    positions [.., D]              0.02              unscaled               1       1 / m
    gate, qkv, out, up, value,
      down, uvqk: [D or F, ..]     fan-in^-1/2       branch / l             1 / m   1 / (m l)
    gates of attention [D, D]      fan-in^-1/2       branch / l             1 / m   1 / (m l)
    residual_scale []              1                 branch / l             1       1 / l
    gains, biases, relative
      biases of the stacks         1, 0, 0           branch / l             1       1 / (m l)
    scores q k^T / K^1/2           -                 / k^1/2                -       -
    HSTU's scores q k^T            -                 / k                    -       -
    late actions [D, D]            fan-in^-1/2       unscaled               1 / m   1 / m
    gain and bias of a head's norm 1, 0              unscaled               1       1 / m
    heads [D, A]                   0                 / m                    1       1 / m
    bias of a head [A]             log-odds          unscaled               1       1

Two-stream models, which have M candidate tokens, t = M / base_tokens:

    candidate tokens [in, D]       in^-1/2           unscaled               1       1 / m
    target attention [D, D]        fan-in^-1/2       unscaled               1 / m   1 / m
    per-token [M, D or F, ..]      fan-in^-1/2       branch / l             1 / m   1 / (m l t)
    generator [M D, ..]            fan-in^-1/2       unscaled             1 / (m t)  1 / m
    router [M, D, X]               0                 / m                    1       1 / (m t)

All models:

    tables [V, E]                  as `standard`     as `standard`          as `standard`

"rate" multiplies optim.dense_lr, "epsilon" multiplies Adam's 1e-8; "branch" is what a block adds to
the residual stream h.

Reasons, row by row. [V] is Tensor Programs V (Yang et al. 2022, arXiv:2203.03466, tables 3 and 8),
[P] is CompleteP (Dey et al. 2025, arXiv:2505.01618, table 1).

- Inputs have a fan-in that does not grow with D, the width of the features: if each weight changes
  by the rate, h changes by about the rate [V]. Entries of an action embedding must not shrink with
  D either: a gate reads h itself, not LN(h), and would see less of the actions in a wider model.
- Matrices of the stacks sum D (or F) correlated changes, hence 1 / m [V]. This includes the gate:
  the entries of its input h keep their size as D grows, by the rows above, and as L grows, by the
  next reason.
- Branches are divided by l, with unchanged rates: L branches change together, each by 1 / L of the
  total, so h changes as much in deep models as in shallow ones, and so does every layer inside its
  branch. With l^1/2, and rates divided by l^1/2 (Yang et al. 2023, arXiv:2310.02244), h would too,
  but each layer of a deep model would hardly change [P]. A gate and its branch form one product,
  which is divided once.
- Trained queries and keys align, so their product grows like K: the factor is 1 / K, not 1 / K^1/2
  [V]. The base size is kept whether the number of heads grows at fixed K, or K at a fixed number.
- Heads read D correlated numbers, hence 1 / m [V]. They start at zero, so an untrained model
  predicts the base rates. A multiplier is used instead of a rate, so that the gradients of heads do
  not dominate the norm that is clipped: the norm of all dense gradients does not grow with D or L.
- Per-token matrices are those of one candidate token, with the parameter group `per_token` in
  their path; their fan-in is D or F, never D F and never M. Growing M leaves rates alone, because
  the mean of M outputs moves as each output does; only the gradient of each shrinks by t. A
  generator (group `generator`) reads all M tokens, so its fan-in grows with M as well; a router
  (group `router`) starts at zero like a head.
- Epsilon scales like the gradient that it is added to [P]. The gradient of a residual scale sums D
  entries, each 1 / (m l) as large.
- Decoupled weight decay is rate x decay x weight, without the rate's multiplier: in one step,
  weights of every width shrink by the same fraction, as is right for an equal number of steps (Wang
  and Aitchison 2024, arXiv:2405.13698; [P]).
- A row of a table moves by about table_lr whatever its gradient, and its change reaches h through a
  projection with fan-in E, independent of D. A growing E is not covered: it increases the fan-in of
  the projection, whose rate would have to decrease, and initial rows with standard deviation
  E^-1/2 become smaller. Keep E fixed, or tune both rates again.

HSTU and ULTRA-HSTU (which have only uvqk and out) follow the table in width. In depth the rule is
conservative: the changes of their layers are less correlated, and with four times as many layers
the residual stream moved 0.6 times as far in six steps.

Also kept fixed while D and L grow, because rates depend on them: ffn_factor, batch, steps,
schedule, data.
"""

from typing import Any, NamedTuple

from ligr_jax.config import ModelConfig

HISTORY, SETWISE = "history", "setwise"  # names of the parameter groups that are stacks
LATE_ACTIONS = "late_actions"  # name of the attention of `ligr_jax.nn.late_actions`
TARGET_ATTENTION = "target_attention"  # name of a layer in front of a stack, which is not scaled
RESIDUAL_SCALE = "residual_scale"  # name of the learned factor of a branch


class MupScale(NamedTuple):
    """A model's shape relative to its base: m, k, l of each stack, and t; all 1 for `standard`."""

    width: float = 1.0
    head_width: float = 1.0
    depth: float = 1.0
    set_depth: float = 1.0
    tokens: float = 1.0


class Multipliers(NamedTuple):
    """Multipliers of a dense parameter's learning rate and of Adam's epsilon."""

    rate: float = 1.0
    epsilon: float = 1.0


def mup_scale(config: ModelConfig) -> MupScale:
    """Return the shape of a model relative to its base shape."""
    if config.parametrization == "standard":
        return MupScale()
    width = config.width / config.base_width
    return MupScale(
        width=width,
        head_width=width * config.base_heads / config.heads,
        depth=config.depth / config.base_depth,
        set_depth=config.set_depth / config.base_set_depth,
        tokens=config.streams.tokens / config.streams.base_tokens,
    )


def multipliers(config: ModelConfig, path: tuple[Any, ...]) -> Multipliers:
    """Return the last two columns of the table for one dense parameter.

    Args:
        config: the model.
        path: the parameter's path in the tree of parameters, as JAX's key entries.
    """
    scale = mup_scale(config)
    names = [str(getattr(part, "key", part)) for part in path]
    depths = {HISTORY: scale.depth, SETWISE: scale.set_depth}
    tokens = scale.tokens if "per_token" in names or "router" in names else 1.0
    if "router" in names:
        return Multipliers(rate=1.0, epsilon=1 / (scale.width * tokens))
    if "generator" in names:
        fan_in = scale.width * scale.tokens
        rate = 1 / fan_in if names[-1] == "kernel" else 1.0
        return Multipliers(rate=rate, epsilon=1 / scale.width)
    if names[0] in depths:
        depth = 1.0 if TARGET_ATTENTION in names else depths[names[0]]
        if names[-1] == RESIDUAL_SCALE:
            return Multipliers(rate=1.0, epsilon=1 / depth)
        rate = 1 / scale.width if names[-1] == "kernel" else 1.0
        return Multipliers(rate=rate, epsilon=1 / (scale.width * depth * tokens))
    if names[0] == LATE_ACTIONS and names[-1] == "kernel":
        return Multipliers(rate=1 / scale.width, epsilon=1 / scale.width)
    if names[-2:] == ["logits", "bias"]:
        return Multipliers()
    return Multipliers(rate=1.0, epsilon=1 / scale.width)
