"""Configuration of a run as frozen dataclasses with dotted names.

    config = override(Config(), ["model.depth=4", "optim.dense_lr=3e-4"])

The command line, sweep files and W&B use the same names. An unknown name raises an error with the
nearest valid names. A combination of values that cannot work raises an error with the values and
the remedy when the dataclass is constructed.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.config.dotted import config_from_json as config_from_json
    from ligr_jax.config.dotted import config_from_plain as config_from_plain
    from ligr_jax.config.dotted import config_to_json as config_to_json
    from ligr_jax.config.dotted import difference as difference
    from ligr_jax.config.dotted import digest as digest
    from ligr_jax.config.dotted import flatten as flatten
    from ligr_jax.config.dotted import override as override
    from ligr_jax.config.errors import ConfigError as ConfigError
    from ligr_jax.config.escaping import escape as escape
    from ligr_jax.config.escaping import file_name as file_name
    from ligr_jax.config.escaping import metric_key as metric_key
    from ligr_jax.config.escaping import unescape as unescape
    from ligr_jax.config.features import Feature as Feature
    from ligr_jax.config.features import TableShape as TableShape
    from ligr_jax.config.head import HeadConfig as HeadConfig
    from ligr_jax.config.hyformer import HyFormerConfig as HyFormerConfig
    from ligr_jax.config.kind_checks import TWO_STREAM_KINDS as TWO_STREAM_KINDS
    from ligr_jax.config.leaks import served_config as served_config
    from ligr_jax.config.leaks import training_leak as training_leak
    from ligr_jax.config.lirank import LiRankConfig as LiRankConfig
    from ligr_jax.config.lists import join_list as join_list
    from ligr_jax.config.lists import split_list as split_list
    from ligr_jax.config.lists import value_text as value_text
    from ligr_jax.config.mixers import RankMixerConfig as RankMixerConfig
    from ligr_jax.config.mixers import TokenMixerConfig as TokenMixerConfig
    from ligr_jax.config.model import ModelConfig as ModelConfig
    from ligr_jax.config.onetrans import OneTransConfig as OneTransConfig
    from ligr_jax.config.renamed import RENAMED_FIELDS as RENAMED_FIELDS
    from ligr_jax.config.renamed import RENAMED_VALUES as RENAMED_VALUES
    from ligr_jax.config.renamed import RenamedField as RenamedField
    from ligr_jax.config.run import PLACEMENTS as PLACEMENTS
    from ligr_jax.config.run import Config as Config
    from ligr_jax.config.run import DataConfig as DataConfig
    from ligr_jax.config.run import EvalConfig as EvalConfig
    from ligr_jax.config.run import MeshConfig as MeshConfig
    from ligr_jax.config.run import OptimConfig as OptimConfig
    from ligr_jax.config.run import TrackConfig as TrackConfig
    from ligr_jax.config.run import TrainConfig as TrainConfig
    from ligr_jax.config.run import WarmConfig as WarmConfig
    from ligr_jax.config.serving import ScoringConfig as ScoringConfig
    from ligr_jax.config.two_stream import TwoStreamConfig as TwoStreamConfig
    from ligr_jax.config.ultra import UltraConfig as UltraConfig
    from ligr_jax.config.wukong import WukongConfig as WukongConfig
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "served_config": "leaks",
            "training_leak": "leaks",
            "Config": "run",
            "ConfigError": "errors",
            "DataConfig": "run",
            "EvalConfig": "run",
            "Feature": "features",
            "HeadConfig": "head",
            "HyFormerConfig": "hyformer",
            "LiRankConfig": "lirank",
            "MeshConfig": "run",
            "ModelConfig": "model",
            "OneTransConfig": "onetrans",
            "OptimConfig": "run",
            "RankMixerConfig": "mixers",
            "TokenMixerConfig": "mixers",
            "PLACEMENTS": "run",
            "RENAMED_FIELDS": "renamed",
            "RENAMED_VALUES": "renamed",
            "RenamedField": "renamed",
            "ScoringConfig": "serving",
            "TWO_STREAM_KINDS": "kind_checks",
            "TableShape": "features",
            "TrackConfig": "run",
            "TrainConfig": "run",
            "TwoStreamConfig": "two_stream",
            "UltraConfig": "ultra",
            "WarmConfig": "run",
            "WukongConfig": "wukong",
            "config_from_json": "dotted",
            "config_from_plain": "dotted",
            "config_to_json": "dotted",
            "difference": "dotted",
            "digest": "dotted",
            "escape": "escaping",
            "file_name": "escaping",
            "flatten": "dotted",
            "join_list": "lists",
            "metric_key": "escaping",
            "override": "dotted",
            "split_list": "lists",
            "unescape": "escaping",
            "value_text": "lists",
        },
    )
