"""Flax modules: layers, blocks, features, heads, the kinds of model, and muP."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.nn.action_values import ActionValueLiGR as ActionValueLiGR
    from ligr_jax.nn.batch_norm import MaskedBatchNorm as MaskedBatchNorm
    from ligr_jax.nn.blocks import Attention as Attention
    from ligr_jax.nn.blocks import Block as Block
    from ligr_jax.nn.blocks import FeedForward as FeedForward
    from ligr_jax.nn.blocks import Gated as Gated
    from ligr_jax.nn.blocks import Stack as Stack
    from ligr_jax.nn.calibration import IsotonicCalibration as IsotonicCalibration
    from ligr_jax.nn.candidate_tokens import CandidateTokens as CandidateTokens
    from ligr_jax.nn.cross import AttentionCross as AttentionCross
    from ligr_jax.nn.cross import Cross as Cross
    from ligr_jax.nn.cross import LowRankCross as LowRankCross
    from ligr_jax.nn.cross import ResidualCross as ResidualCross
    from ligr_jax.nn.experts import Experts as Experts
    from ligr_jax.nn.experts import SparseExperts as SparseExperts
    from ligr_jax.nn.features import ActionTokens as ActionTokens
    from ligr_jax.nn.features import ItemTokens as ItemTokens
    from ligr_jax.nn.heads import Heads as Heads
    from ligr_jax.nn.history import pooled_history as pooled_history
    from ligr_jax.nn.hstu import HSTU as HSTU
    from ligr_jax.nn.hstu import TransductionUnit as TransductionUnit
    from ligr_jax.nn.hyformer import HyFormer as HyFormer
    from ligr_jax.nn.late_actions import LateActionLiGR as LateActionLiGR
    from ligr_jax.nn.ligr import LiGR as LiGR
    from ligr_jax.nn.ligr_streams import LiGRStreams as LiGRStreams
    from ligr_jax.nn.linear import Linear as Linear
    from ligr_jax.nn.lirank import LiRank as LiRank
    from ligr_jax.nn.mlp import MLP as MLP
    from ligr_jax.nn.models import MODELS as MODELS
    from ligr_jax.nn.models import ModelKind as ModelKind
    from ligr_jax.nn.models import make_model as make_model
    from ligr_jax.nn.multitask import PLE as PLE
    from ligr_jax.nn.multitask import MMoE as MMoE
    from ligr_jax.nn.mup import MupScale as MupScale
    from ligr_jax.nn.mup import multipliers as multipliers
    from ligr_jax.nn.mup import mup_scale as mup_scale
    from ligr_jax.nn.onetrans import OneTrans as OneTrans
    from ligr_jax.nn.per_token import PerTokenLinear as PerTokenLinear
    from ligr_jax.nn.rankmixer import RankMixer as RankMixer
    from ligr_jax.nn.tokenmixer import TokenMixer as TokenMixer
    from ligr_jax.nn.towers import Towers as Towers
    from ligr_jax.nn.transact import EncoderLayer as EncoderLayer
    from ligr_jax.nn.transact import HistoryEncoder as HistoryEncoder
    from ligr_jax.nn.two_stream import StreamStack as StreamStack
    from ligr_jax.nn.two_stream import TwoStream as TwoStream
    from ligr_jax.nn.ultra import UltraHSTU as UltraHSTU
    from ligr_jax.nn.work import Work as Work
    from ligr_jax.nn.wukong import Wukong as Wukong
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "ActionTokens": "features",
            "ActionValueLiGR": "action_values",
            "CandidateTokens": "candidate_tokens",
            "LiGRStreams": "ligr_streams",
            "StreamStack": "two_stream",
            "TwoStream": "two_stream",
            "Attention": "blocks",
            "AttentionCross": "cross",
            "Block": "blocks",
            "Cross": "cross",
            "EncoderLayer": "transact",
            "Experts": "experts",
            "FeedForward": "blocks",
            "Gated": "blocks",
            "HSTU": "hstu",
            "Heads": "heads",
            "HistoryEncoder": "transact",
            "HyFormer": "hyformer",
            "IsotonicCalibration": "calibration",
            "ItemTokens": "features",
            "LateActionLiGR": "late_actions",
            "LiGR": "ligr",
            "LiRank": "lirank",
            "Linear": "linear",
            "LowRankCross": "cross",
            "MLP": "mlp",
            "MMoE": "multitask",
            "MODELS": "models",
            "MaskedBatchNorm": "batch_norm",
            "ModelKind": "models",
            "MupScale": "mup",
            "OneTrans": "onetrans",
            "PLE": "multitask",
            "PerTokenLinear": "per_token",
            "RankMixer": "rankmixer",
            "ResidualCross": "cross",
            "SparseExperts": "experts",
            "Stack": "blocks",
            "TokenMixer": "tokenmixer",
            "Towers": "towers",
            "TransductionUnit": "hstu",
            "UltraHSTU": "ultra",
            "Work": "work",
            "Wukong": "wukong",
            "make_model": "models",
            "multipliers": "mup",
            "mup_scale": "mup",
            "pooled_history": "history",
        },
    )
