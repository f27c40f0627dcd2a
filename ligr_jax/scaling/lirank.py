"""Presets of LiRank's rankers: the wiring of the paper, small enough for a laptop.

From the paper: ids 30 wide (3.1), warm-up over half of the steps (6.2), two cross layers (3.3).
Different from the paper: the hidden layers are smaller than its 3,500
(`model.head.widths=3500,3500,3500,3500`).
"""

_COMMON = (
    "model.kind=lirank",
    "model.set_depth=0",
    "model.table_width=30",
    "model.lirank.cross_layers=2",
    "optim.warmup=0.5",
    "eval.splits=validation",
)
LIRANK: dict[str, tuple[str, ...]] = {
    "lirank-feed": (
        *_COMMON,
        "model.lirank.variant=feed",
        "model.head.kind=mlp",
        "model.head.widths=128,128",
        "model.head.gated=true",
        "model.head.calibration=true",
    ),
    "lirank-ads": (
        *_COMMON,
        "model.lirank.variant=ads",
        "model.lirank.mlp=128,128",
        "model.lirank.gated=false",
        "model.lirank.residual=false",
        "model.head.calibration=true",
    ),
    "lirank-jobs": (
        *_COMMON,
        "model.lirank.variant=jobs",
        "model.lirank.residual=false",
        "model.lirank.history=0",
    ),
}
