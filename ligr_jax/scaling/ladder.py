"""Configurations from few dials: the data's defaults, then a preset, then dotted overrides."""

from collections.abc import Iterable
from pathlib import Path

from ligr_jax.config import Config, ConfigError, DataConfig, ModelConfig, override
from ligr_jax.data.assemble import check_columns, default_features
from ligr_jax.data.manifest import Manifest

# The demo's ladder: sequence length, depth, widths and the share of the members grow together.
_DEMO = (
    # T, depth, width, heads, table width, members
    (16, 1, 8, 1, 4, 0.12),
    (32, 1, 16, 2, 8, 0.25),
    (32, 2, 16, 2, 8, 0.35),
    (64, 2, 24, 2, 8, 0.50),
    (64, 2, 32, 2, 16, 0.70),
    (128, 2, 32, 2, 16, 1.00),
    (128, 3, 40, 4, 16, 1.00),
    (256, 3, 48, 4, 16, 1.00),
)
_DEMO_TOKENS = 1024  # of a batch
_DEMO_COMMON = (
    "model.action_token=actions_and_item",
    "model.position=relative_session",
    "model.table_init=0.02",
    "optim.dense_lr=3e-3",
    "eval.splits=validation",
    "train.checkpoint_every=500",
)

PRESETS: dict[str, tuple[str, ...]] = {
    f"demo-{i}": (
        *_DEMO_COMMON,
        f"data.seq_len={t}",
        f"optim.batch={_DEMO_TOKENS // t}",
        f"model.depth={depth}",
        f"model.width={width}",
        f"model.heads={heads}",
        f"model.table_width={table}",
        f"data.fraction={members}",
    )
    for i, (t, depth, width, heads, table, members) in enumerate(_DEMO)
}


def configure(manifest: Manifest, data: Path | str, assignments: Iterable[str] = ()) -> Config:
    """The configuration of a run on prepared data, checked against its manifest.

    assignments: dotted overrides; `preset=NAME` among them stands for that preset's, which the
        others override.

    Raises:
        ConfigError: unknown preset or name, impossible combination, or columns the data lacks.
    """
    given = list(assignments)
    presets = [a.removeprefix("preset=") for a in given if a.startswith("preset=")]
    for preset in presets:
        if preset not in PRESETS:
            raise ConfigError(f"no preset '{preset}'; there are {', '.join(PRESETS)}")
    chosen = [a for preset in presets for a in PRESETS[preset]]
    rates = manifest.splits["train"].positive_rate
    config = Config(
        model=ModelConfig(
            features=default_features(manifest.columns),
            actions=manifest.actions,
            prior=tuple(_prior(rates.get(a, 0.5)) for a in manifest.actions),
        ),
        data=DataConfig(dir=str(data), digest=manifest.digest),
    )
    others = [a for a in given if not a.startswith("preset=")]
    config = override(config, [*chosen, *others])
    check_columns(config.model, manifest)
    return config


def _prior(rate: float) -> float:
    return round(min(max(rate, 1e-4), 1 - 1e-4), 6)
