"""Configurations from few dials: what grows with what, written down once.

A rung is a size of the model: sequence length, depth, width D and table width E. All else follows
from it by the rules of its ladder:

    optim.batch   tokens of a batch / sequence length: a step sees as many tokens at every length
    model.heads   width / head width
    LiRank's      rank as the width, towers a multiple of it, the history half as wide and a quarter
      sizes       of a row's impressions long: its encoder runs anew for every candidate
    learning rate of each matrix by width and depth (`ligr_jax.nn.mup`)
    steps         one pass over the members, or `train.flops` where a budget is given

`ligr train` and sweep files understand some names that are no fields of `Config`:

    preset=demo-4            a rung with all its rules
    change=NAME=V;NAME=V     several assignments as one value, so that a sweep can vary them as one
                             thing; `change=none` changes nothing (one with a ; in double quotes)
    batch_tokens=1024        the batch by its tokens; head_width=16: the heads by their width;
                             lirank=4: sizes of LiRank, whose towers are 4 times the width

A preset's assignments come first, then a change's, then what is given beside them; these three are
applied last, to the length and width that resulted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ligr_jax.config import Config, ConfigError, DataConfig, ModelConfig, override, split_list
from ligr_jax.data.assemble import check_columns, default_features
from ligr_jax.data.manifest import Manifest
from ligr_jax.scaling.lirank import LIRANK


@dataclass(frozen=True)
class Ladder:
    """What the rungs of one ladder have in common."""

    name: str
    batch_tokens: int
    head_width: int
    common: tuple[str, ...]
    # T, depth, width, table width
    rungs: tuple[tuple[int, int, int, int], ...]

    def presets(self) -> dict[str, tuple[str, ...]]:
        """Assignments of every rung, by the name of its preset."""
        return {
            f"{self.name}-{i}": (
                *self.common,
                f"batch_tokens={self.batch_tokens}",
                f"head_width={self.head_width}",
                f"data.seq_len={t}",
                f"model.depth={depth}",
                f"model.width={width}",
                f"model.table_width={table}",
            )
            for i, (t, depth, width, table) in enumerate(self.rungs)
        }


DEMO = Ladder(
    name="demo",
    batch_tokens=1024,
    head_width=16,
    common=(
        "model.action_token=actions_and_item",
        "model.position=relative_session",
        "model.table_init=0.02",
        # The best rate of D = 16, and so of every rung (experiments/learning_rate.py).
        "model.parametrization=mup",
        "model.base_width=16",
        "model.base_depth=2",
        "model.base_heads=1",
        "optim.dense_lr=4e-3",
        "eval.splits=validation",
        "train.checkpoint_every=500",
    ),
    # Everything grows a little at every rung: a jump in T alone would be a step in the law.
    rungs=(
        (16, 1, 8, 4),
        (24, 1, 12, 4),
        (32, 2, 16, 8),
        (48, 2, 20, 8),
        (64, 2, 24, 8),
        (96, 2, 32, 16),
        (128, 3, 40, 16),
        (192, 3, 48, 16),
    ),
)

# Up to the largest model of LiGR 5.1: 16 layers, 64-wide ids, 1,024 impressions, 10 M dense
# parameters; rates as in its A.1. Depth, width and length at the lower rungs are ours.
PAPER = Ladder(
    name="paper",
    batch_tokens=2**17,
    head_width=64,
    common=(
        "model.dtype=bfloat16",
        "model.parametrization=mup",
        "model.base_width=128",
        "model.base_depth=8",
        "model.base_heads=2",
        "optim.dense_lr=1e-3",
        "optim.table_lr=1e-2",
        "eval.splits=validation,test",
        "train.checkpoint_every=1000",
    ),
    rungs=(
        (64, 2, 64, 8),
        (128, 4, 64, 16),
        (256, 6, 128, 32),
        (512, 8, 128, 32),
        (1024, 12, 192, 64),
        (2048, 16, 192, 64),
    ),
)

PRESETS: dict[str, tuple[str, ...]] = DEMO.presets() | PAPER.presets() | LIRANK


def configure(manifest: Manifest, data: Path | str, assignments: Iterable[str] = ()) -> Config:
    """The configuration of a run on prepared data, checked against its manifest.

    assignments: dotted overrides, with the dials of this module among them.

    Raises:
        ConfigError: unknown preset or name, impossible combination, or columns the data lacks.
    """
    plain, dials = _resolve(list(assignments))
    rates = manifest.splits["train"].positive_rate
    config = Config(
        model=ModelConfig(
            features=default_features(manifest.columns),
            actions=manifest.actions,
            prior=tuple(_prior(rates.get(a, 0.5)) for a in manifest.actions),
        ),
        data=DataConfig(dir=str(data), digest=manifest.digest),
    )
    if dials:
        # Heads are set aside while widths are read, which they may not divide yet.
        shape = override(config, [*plain, "model.heads=1"] if "head_width" in dials else plain)
        plain += [a for name, value in dials.items() for a in _follow(shape, name, value)]
    config = override(config, plain)
    check_columns(config.model, manifest)
    return config


def _resolve(given: list[str]) -> tuple[list[str], dict[str, int]]:
    """Plain assignments, and the dials that are applied to what they make."""
    presets, changes, others = list[str](), list[str](), list[str]()
    for assignment in given:
        name, _, value = assignment.partition("=")
        if name == "preset":
            if value not in PRESETS:
                raise ConfigError(f"no preset '{value}'; there are {', '.join(PRESETS)}")
            presets += PRESETS[value]
        elif name == "change":
            changes += [] if value in ("", "none") else split_list(value, ";")
        else:
            others.append(assignment)
    plain, dials = list[str](), dict[str, int]()
    for assignment in [*presets, *changes, *others]:
        name, _, value = assignment.partition("=")
        if name in _FOLLOWERS:
            if not value.isdigit() or not int(value):
                raise ConfigError(f"{assignment}: expected a whole number above 0")
            dials[name] = int(value)
        else:
            plain.append(assignment)
            # Said outright, a number no longer follows.
            dials = {k: v for k, v in dials.items() if name not in _FOLLOWERS[k]}
    return plain, dials


# Dial -> what follows from it.
_FOLLOWERS = {
    "batch_tokens": ("optim.batch",),
    "head_width": ("model.heads",),
    "lirank": (
        "model.head.widths",
        "model.lirank.rank",
        "model.lirank.history",
        "model.lirank.history_width",
    ),
}


def _follow(config: Config, dial: str, value: int) -> list[str]:
    seq_len, width = config.data.seq_len, config.model.width
    values: dict[str, tuple[object, ...]] = {
        "batch_tokens": (max(1, value // seq_len),),
        "head_width": (max(1, width // value),),
        "lirank": (
            f"{value * width},{value * width}",
            width,
            max(8, seq_len // 8),
            max(8, width // 4 * 2),
        ),
    }
    return [f"{name}={v}" for name, v in zip(_FOLLOWERS[dial], values[dial])]


def _prior(rate: float) -> float:
    return round(min(max(rate, 1e-4), 1 - 1e-4), 6)
