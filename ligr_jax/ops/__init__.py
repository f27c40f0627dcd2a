"""Pure array functions without parameters: masks, attention, losses, metrics, hashing, codes."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.ops.attention.cached import KeyValues as KeyValues
    from ligr_jax.ops.attention.cached import Past as Past
    from ligr_jax.ops.attention.cached import attend_cached as attend_cached
    from ligr_jax.ops.attention.dispatch import Implementation as Implementation
    from ligr_jax.ops.attention.dispatch import attend as attend
    from ligr_jax.ops.attention.scores import Activation as Activation
    from ligr_jax.ops.attention.scores import RelativeBias as RelativeBias
    from ligr_jax.ops.attention.scores import bucket_distance as bucket_distance
    from ligr_jax.ops.grouped import GroupedForm as GroupedForm
    from ligr_jax.ops.grouped import grouped_matmul as grouped_matmul
    from ligr_jax.ops.hashing import hash_rows as hash_rows
    from ligr_jax.ops.hashing import mix64 as mix64
    from ligr_jax.ops.hashing import qr_rows as qr_rows
    from ligr_jax.ops.isotonic import isotonic_map as isotonic_map
    from ligr_jax.ops.losses import attention_rank_loss as attention_rank_loss
    from ligr_jax.ops.losses import binary_cross_entropy as binary_cross_entropy
    from ligr_jax.ops.losses import session_numbers as session_numbers
    from ligr_jax.ops.masks import Mask as Mask
    from ligr_jax.ops.masks import MaskKind as MaskKind
    from ligr_jax.ops.masks import allowed_keys as allowed_keys
    from ligr_jax.ops.masks import allowed_pairs as allowed_pairs
    from ligr_jax.ops.masks import dense_mask as dense_mask
    from ligr_jax.ops.masks import history_mask as history_mask
    from ligr_jax.ops.masks import past_ends as past_ends
    from ligr_jax.ops.masks import session_mask as session_mask
    from ligr_jax.ops.metrics import auc as auc
    from ligr_jax.ops.metrics import calibration as calibration
    from ligr_jax.ops.metrics import expected_calibration_error as expected_calibration_error
    from ligr_jax.ops.metrics import gauc as gauc
    from ligr_jax.ops.metrics import ndcg as ndcg
    from ligr_jax.ops.metrics import normalized_entropy as normalized_entropy
    from ligr_jax.ops.pairwise import pair_loss as pair_loss
    from ligr_jax.ops.quantization import QuantizedTable as QuantizedTable
    from ligr_jax.ops.quantization import dequantize as dequantize
    from ligr_jax.ops.quantization import lookup_rows as lookup_rows
    from ligr_jax.ops.quantization import quantize as quantize
    from ligr_jax.ops.windows import Windows as Windows
    from ligr_jax.ops.windows import gather_windows as gather_windows
    from ligr_jax.ops.windows import history_windows as history_windows
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Activation": "attention.scores",
            "GroupedForm": "grouped",
            "Implementation": "attention.dispatch",
            "KeyValues": "attention.cached",
            "Past": "attention.cached",
            "Mask": "masks",
            "MaskKind": "masks",
            "QuantizedTable": "quantization",
            "RelativeBias": "attention.scores",
            "Windows": "windows",
            "allowed_keys": "masks",
            "allowed_pairs": "masks",
            "attend": "attention.dispatch",
            "attend_cached": "attention.cached",
            "attention_rank_loss": "losses",
            "auc": "metrics",
            "binary_cross_entropy": "losses",
            "bucket_distance": "attention.scores",
            "calibration": "metrics",
            "dense_mask": "masks",
            "dequantize": "quantization",
            "expected_calibration_error": "metrics",
            "gather_windows": "windows",
            "gauc": "metrics",
            "grouped_matmul": "grouped",
            "hash_rows": "hashing",
            "history_mask": "masks",
            "history_windows": "windows",
            "isotonic_map": "isotonic",
            "lookup_rows": "quantization",
            "mix64": "hashing",
            "ndcg": "metrics",
            "normalized_entropy": "metrics",
            "pair_loss": "pairwise",
            "past_ends": "masks",
            "qr_rows": "hashing",
            "quantize": "quantization",
            "session_mask": "masks",
            "session_numbers": "losses",
        },
    )
