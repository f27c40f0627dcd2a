"""Configurations from few dials: the data's defaults, then a preset, then dotted overrides."""

from collections.abc import Iterable
from pathlib import Path

from ligr_jax.config import Config, ConfigError, DataConfig, ModelConfig, override
from ligr_jax.data.assemble import check_columns, default_features
from ligr_jax.data.manifest import Manifest

# Rungs of the demo's ladder: sequence length, depth and widths grow together, and the share of the
# members with them.
_DEMO = (
    # T, depth, set depth, width, heads, table width, members
    (16, 1, 1, 8, 1, 4, 0.10),
    (32, 2, 1, 16, 1, 8, 0.20),
)

PRESETS: dict[str, tuple[str, ...]] = {
    f"demo-{i}": (
        f"data.seq_len={t}",
        f"model.depth={depth}",
        f"model.set_depth={set_depth}",
        f"model.width={width}",
        f"model.heads={heads}",
        f"model.table_width={table}",
        f"data.fraction={members}",
    )
    for i, (t, depth, set_depth, width, heads, table, members) in enumerate(_DEMO)
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
