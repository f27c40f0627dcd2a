"""One frozen value holds a whole run: `Config`, overridden by dotted names, flat for trackers.

    config = override(Config(), ["model.depth=4", "optim.dense_lr=3e-4"])

The same names serve the command line, sweep files and the tracker's run config. A name or value
that does not fit fails at once, with the nearest valid names; a combination that cannot work fails
where the dataclass is made, with the values and the remedy.
"""

from ligr_jax.config.dotted import (
    config_from_json,
    config_from_plain,
    config_to_json,
    difference,
    digest,
    flatten,
    override,
)
from ligr_jax.config.errors import ConfigError
from ligr_jax.config.escaping import escape, file_name, metric_key, unescape
from ligr_jax.config.features import Feature, TableShape
from ligr_jax.config.head import HeadConfig
from ligr_jax.config.lirank import LiRankConfig
from ligr_jax.config.lists import join_list, split_list, value_text
from ligr_jax.config.model import ModelConfig
from ligr_jax.config.renamed import RENAMED_FIELDS, RENAMED_VALUES, RenamedField
from ligr_jax.config.run import (
    PLACEMENTS,
    Config,
    DataConfig,
    EvalConfig,
    MeshConfig,
    OptimConfig,
    TrackConfig,
    TrainConfig,
    WarmConfig,
)
from ligr_jax.config.wukong import WukongConfig

__all__ = [
    "PLACEMENTS",
    "RENAMED_FIELDS",
    "RENAMED_VALUES",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "Feature",
    "HeadConfig",
    "LiRankConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "RenamedField",
    "TableShape",
    "TrackConfig",
    "TrainConfig",
    "WarmConfig",
    "WukongConfig",
    "config_from_json",
    "config_from_plain",
    "config_to_json",
    "difference",
    "digest",
    "escape",
    "file_name",
    "flatten",
    "join_list",
    "metric_key",
    "override",
    "split_list",
    "unescape",
    "value_text",
]
