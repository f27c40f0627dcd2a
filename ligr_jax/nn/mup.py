"""Learning-rate transfer: the best rate of a narrow, shallow model is the best of a large one too.

With model.parametrization=mup, multipliers relative to a base shape keep what a step of Adam
changes in every layer at one size, whatever the width D and the depth L:

    m = D / base_width      k = K / K_base, with K = D / heads
    l = depth / base_depth for the historical layers, set_depth / base_set_depth for the set-wise

At the base shape all are 1 and nothing differs from `standard`.

    parameter                      fresh deviation   in the forward pass    rate    epsilon
    input projections [in, D]      in^-1/2           as it is               1       1 / m
    action embeddings [.., D]      base_width^-1/2   as they are            1       1 / m
    positions [.., D]              0.02              as they are            1       1 / m
    gate, qkv, out, up, value,
      down, uvqk: [D or F, ..]     fan-in^-1/2       branch / l             1 / m   1 / (m l)
    gains, biases, relative
      biases of the stacks         1, 0, 0           branch / l             1       1 / (m l)
    scores q k^T / K^1/2           -                 / k^1/2                -       -
    HSTU's scores q k^T            -                 / k                    -       -
    gain and bias of a head's norm 1, 0              as they are            1       1 / m
    heads [D, A]                   0                 / m                    1       1 / m
    bias of a head [A]             log-odds          as it is               1       1
    tables [V, E]                  as ever           as ever                as ever as ever

"rate" multiplies optim.dense_lr, "epsilon" Adam's 1e-8; "branch" is what a block adds to h.

Why, row by row. [V] is Tensor Programs V (Yang et al. 2022, arXiv:2203.03466, tables 3 and 8), [P]
CompleteP (Dey et al. 2025, arXiv:2505.01618, table 1).

- Inputs have a fan-in that does not grow with D, the features' widths: a change of each weight by
  the rate changes h by about the rate [V]. Entries of an embedding must not shrink with D either,
  or a gate, which reads h itself and not LN(h), sees less of actions in wider models.
- Matrices of the stacks sum D (or F) correlated changes: 1 / m [V]. The gate is one of them: its
  input h keeps the size of its entries in D, by the rows above, and in L, by the next.
- A branch over l, with rates left alone: L branches change together, each by 1 / L of the whole, so
  h changes as much in deep models, and so does every layer inside its branch. With l^1/2 and rates
  over l^1/2 (Yang et al. 2023, arXiv:2310.02244) h would too, but a layer of a deep model hardly
  [P]. Gate and branch are one product, divided once.
- Trained queries and keys align, their product grows like K: 1 / K, not 1 / K^1/2 [V]. Heads that
  grow in number at fixed K, or in width at a fixed number, both keep their base's size.
- Heads read D correlated numbers: 1 / m [V]; they start at zero, so they foretell nothing before
  they learn. By a multiplier, not a rate, so that their gradient does not take over the norm that
  is clipped: the norm of all dense gradients does not grow with D or L.
- Epsilon shrinks like the gradient beside which it stands [P].
- Decoupled weight decay is rate x decay x weight without the multiplier: per step, weights of every
  width shrink by one share, as the same number of steps asks (Wang and Aitchison 2024,
  arXiv:2405.13698; [P]).
- A row of a table moves by about table_lr whatever its gradient, and its change reaches h through a
  projection of fan-in E: no D. Growing E is not covered: it grows the fan-in of the projection,
  whose rate would have to fall, and fresh rows of deviation E^-1/2 lose size. Keep E, or tune both
  rates again.

HSTU (uvqk and out alone) follows the table in width. In depth it is careful: the changes of its
layers agree less, and four times as many moved the residual stream 0.6 times as far in six steps.

Also held while D and L grow: ffn_factor, batch, steps, schedule, data. Rates move with them.
"""

from typing import Any, NamedTuple

from ligr_jax.config import ModelConfig

HISTORY, SETWISE = "history", "setwise"  # the groups of parameters that are stacks


class MupScale(NamedTuple):
    """A model's shape over its base's: m, k, and l of either stack; all 1 under `standard`."""

    width: float = 1.0
    head_width: float = 1.0
    depth: float = 1.0
    set_depth: float = 1.0


class Multipliers(NamedTuple):
    """Of a dense parameter: what its learning rate and Adam's epsilon are multiplied by."""

    rate: float = 1.0
    epsilon: float = 1.0


def mup_scale(config: ModelConfig) -> MupScale:
    """How much larger than its base a model is."""
    if config.parametrization == "standard":
        return MupScale()
    width = config.width / config.base_width
    return MupScale(
        width=width,
        head_width=width * config.base_heads / config.heads,
        depth=config.depth / config.base_depth,
        set_depth=config.set_depth / config.base_set_depth,
    )


def multipliers(config: ModelConfig, path: tuple[Any, ...]) -> Multipliers:
    """The last two columns of the table for the dense parameter at a path of JAX's keys."""
    grown, names = mup_scale(config), [str(getattr(part, "key", part)) for part in path]
    depths = {HISTORY: grown.depth, SETWISE: grown.set_depth}
    if names[0] in depths:
        rate = 1 / grown.width if names[-1] == "kernel" else 1.0
        return Multipliers(rate, 1 / (grown.width * depths[names[0]]))
    if names[-2:] == ["logits", "bias"]:
        return Multipliers()
    return Multipliers(1.0, 1 / grown.width)
