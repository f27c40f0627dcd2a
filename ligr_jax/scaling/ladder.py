"""Ladders of model sizes, presets, and settings derived from other settings.

A rung is a size of the model: sequence length, depth, width D and table width E. The other settings
follow from it:

    optim.batch    tokens per batch / sequence length, so that every step has the same tokens
    model.heads    width / head width
    LiRank         rank = width; towers a multiple of the width; history half as wide, and a quarter
                   of a row's impressions long, because its encoder runs once per candidate
    learning rate  per matrix, by width and depth (`ligr_jax.nn.mup`)
    steps          one pass over the members, or `train.flops` if a budget is given

`ligr train` and sweep files accept some names that are not fields of `Config`:

    preset=demo-4            all settings of a rung
    change=NAME=V;NAME=V     several assignments as one value, so that a sweep can vary them
                             together; `change=none` changes nothing; an assignment with a ; is
                             written in double quotes
    batch_tokens=1024        sets the batch by its tokens
    head_width=16            sets the number of heads by their width
    lirank=4                 sets the sizes of LiRank, with towers of 4 times the width

Assignments of a preset are applied first, then those of a change, then the others. The last three
names are applied at the end, to the resulting length and width.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ligr_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    join_list,
    override,
    split_list,
)
from ligr_jax.data.assemble import check_columns, default_features
from ligr_jax.data.manifest import Manifest
from ligr_jax.scaling.lirank import LIRANK
from ligr_jax.store.mirror import address


@dataclass(frozen=True)
class Ladder:
    """A ladder.

    Attributes:
        name: prefix of its presets.
        batch_tokens: tokens per batch.
        head_width: width of an attention head.
        common: assignments of all rungs.
        rungs: (T, depth, width, table width) of each rung.
    """

    name: str
    batch_tokens: int
    head_width: int
    common: tuple[str, ...]
    rungs: tuple[tuple[int, int, int, int], ...]

    def presets(self) -> dict[str, tuple[str, ...]]:
        """Return the assignments of every rung by preset name."""
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
        # Best rate at D = 16; muP transfers it to every rung (experiments/learning_rate.py).
        "model.parametrization=mup",
        "model.base_width=16",
        "model.base_depth=2",
        "model.base_heads=1",
        "optim.dense_lr=4e-3",
        "eval.splits=validation",
        "train.checkpoint_every=500",
    ),
    # All sizes grow gradually: a jump in T alone would show as a step in the law.
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

# KuaiRand with its earlier rows as targets (docs/results.md, "A law on a real feed"). The rungs are
# those of the synthetic world; features, tables and the rank loss were chosen on 5 May.
KUAIRAND = Ladder(
    name="kuairand",
    batch_tokens=1024,
    head_width=16,
    common=(
        "model.features=item_id,actor_id,tag,video_type,upload_type,music_type,"
        "user_active_degree,user_follows,user_fans,user_friends,user_registered,"
        "surface,hour,duration_ms,video_age_days,play_time_ms",
        "model.actions=click,long_dwell,like,contribution",
        "model.action_token=actions_and_item",
        "model.table_init=0.05",
        "model.parametrization=mup",
        "model.base_width=16",
        "model.base_depth=2",
        "model.base_heads=1",
        "optim.dense_lr=2e-3",
        "optim.table_optimizer=adamw",
        "optim.table_lr=0.02",
        "optim.table_weight_decay=0.1",
        "optim.rank_weight=0.05",
        "eval.splits=validation,test",
        "train.checkpoint_every=1000",
    ),
    rungs=DEMO.rungs,
)

# The largest rung is the largest model of LiGR 5.1: 16 layers, ids 64 wide, 1,024 impressions, 10 M
# dense parameters; rates as in its A.1. Depth, width and length of the lower rungs are our choice.
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

PRESETS: dict[str, tuple[str, ...]] = DEMO.presets() | KUAIRAND.presets() | PAPER.presets() | LIRANK


def configure(manifest: Manifest, data: Path | str, assignments: Iterable[str] = ()) -> Config:
    """Return the configuration of a run on prepared data, checked against its manifest.

    Args:
        manifest: manifest of the data.
        data: directory of the data.
        assignments: dotted overrides, and the additional names of this module.

    Raises:
        ConfigError: a preset or name is unknown, a combination is invalid, or the data lacks a
            column.
    """
    plain, derived = _resolve(list(assignments))
    rates = manifest.splits["train"].positive_rate
    config = Config(
        model=ModelConfig(
            features=default_features(manifest.columns),
            actions=manifest.actions,
            late_actions=manifest.late_actions,
            prior=tuple(_prior(rates.get(a, 0.5)) for a in manifest.actions),
        ),
        data=DataConfig(dir=address(data), digest=manifest.digest),
    )
    chosen = [a.partition("=")[2] for a in plain if a.startswith("model.actions=")]
    if chosen:  # the priors follow the actions, unless they are given too
        priors = [str(_prior(rates.get(a, 0.5))) for a in split_list(chosen[-1])]
        plain = [f"model.prior={join_list(priors)}", *plain]
    if derived:
        # The heads of the intermediate shape may not divide its width, so they are 1 until derived.
        shape = override(config, [*plain, "model.heads=1"] if "head_width" in derived else plain)
        plain += [a for name, value in derived.items() for a in _derive(shape, name, value)]
    before = config.data
    config = override(config, plain)
    if address(config.data.dir) != before.dir:
        raise ConfigError(
            f"data.dir={config.data.dir}, but --data is {data}; name the data once, with --data"
        )
    if config.data.digest != before.digest:
        raise ConfigError(
            f"data.digest={config.data.digest}, but {data} has the digest {before.digest}; leave "
            "data.digest out, or give the data that have it"
        )
    check_columns(config.model, manifest)
    return config


def _resolve(assignments: list[str]) -> tuple[list[str], dict[str, int]]:
    """Expand presets and changes; return plain assignments, and the names to derive from."""
    presets = list[str]()
    changes = list[str]()
    others = list[str]()
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name == "preset":
            if value not in PRESETS:
                near = difflib.get_close_matches(value, PRESETS, n=3, cutoff=0.5)
                names = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(PRESETS)}"
                raise ConfigError(f"no preset '{value}'; {names}")
            presets += PRESETS[value]
        elif name == "change":
            changes += [] if value in ("", "none") else split_list(value, ";")
        else:
            others.append(assignment)
    plain = list[str]()
    derived = dict[str, int]()
    for assignment in [*presets, *changes, *others]:
        name, _, value = assignment.partition("=")
        if name in _DERIVED:
            if not value.isdigit() or not int(value):
                raise ConfigError(f"{assignment}: expected a whole number above 0")
            derived[name] = int(value)
        else:
            plain.append(assignment)
            # An explicit setting overrides an earlier derivation.
            derived = {k: v for k, v in derived.items() if name not in _DERIVED[k]}
    return plain, derived


# Additional name -> settings derived from it.
_DERIVED = {
    "batch_tokens": ("optim.batch",),
    "head_width": ("model.heads",),
    "lirank": (
        "model.head.widths",
        "model.lirank.rank",
        "model.lirank.history",
        "model.lirank.history_width",
    ),
}


def _derive(config: Config, name: str, value: int) -> list[str]:
    """Return the assignments that `name=value` stands for at the length and width of `config`."""
    seq_len = config.data.seq_len
    width = config.model.width
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
    return [f"{setting}={v}" for setting, v in zip(_DERIVED[name], values[name])]


def _prior(rate: float) -> float:
    """Round an action's positive rate, away from 0 and 1."""
    return round(min(max(rate, 1e-4), 1 - 1e-4), 6)
