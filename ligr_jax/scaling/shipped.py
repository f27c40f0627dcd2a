"""Generator of the sweep files in sweeps/: `python -m ligr_jax.scaling.shipped sweeps`.

Every study has a version for a pod (paper/) and one that takes minutes on two cores (tiny/).
Settings that depend on others (batch on length, heads on width, a rung's sizes) are derived in
`ladder`, so that each file is a grid of independent axes, as W&B requires.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ligr_jax.atomic import write_atomically
from ligr_jax.scaling.ladder import DEMO, KUAIRAND, PAPER

Axes = Mapping[str, Sequence[Any] | str | int]
SEEDS = (0, 1, 2)

# Other architectures, and LiGR without its distinctive parts.
WUKONG = "model.kind=wukong;model.set_depth=0;model.parametrization=standard"
LIRANK = (
    "model.kind=lirank;model.set_depth=0;model.parametrization=standard;"
    "model.head.kind=mlp;model.head.gated=true;lirank=4"
)
RIVALS = {
    "ligr": "none",
    "hstu": "model.kind=hstu",
    "wukong": WUKONG,
    "wukong_dual": f"{WUKONG};model.wukong.dual_path=true",  # A.2
    "lirank": LIRANK,
}
# Architectures of one footing: no set-wise layers, and four candidate tokens in two-stream models.
_POINTWISE = "model.set_depth=0"
_TWO_STREAM = f"{_POINTWISE};model.streams.tokens=4;model.streams.base_tokens=4"
UNIFIED = {
    "ligr": _POINTWISE,
    "ligr_streams": f"model.kind=ligr_streams;{_TWO_STREAM}",
    "hstu": f"model.kind=hstu;{_POINTWISE}",
    "rankmixer": f"model.kind=rankmixer;{_TWO_STREAM}",
    "tokenmixer": f"model.kind=tokenmixer;{_TWO_STREAM}",
    "onetrans": f"model.kind=onetrans;{_TWO_STREAM}",
    "ultra": f"model.kind=ultra;{_POINTWISE}",
    "hyformer": (
        f"model.kind=hyformer;{_POINTWISE};model.streams.tokens=2;model.streams.base_tokens=2;"
        "model.streams.queries=2"
    ),
}
BASELINES = (
    *RIVALS.values(),
    "model.gate=none",  # a pre-norm transformer
    "model.gate=none;model.mask=causal;model.set_depth=0",  # the same without LiGR's masks
    "model.depth=0;model.set_depth=3",  # in-session attention only, as in SetRank
)
ABLATIONS = (
    "none",
    "model.set_depth=0",  # table 4
    "model.gate=none",
    "model.ffn=none",  # A.1, and so are the next four
    "model.attention=silu",
    "model.attention=sigmoid",
    "model.position=learned",
    "model.position=relative_session",
    "model.position=none",
    "model.mask=causal",
    "model.mask=session_lag",
    "optim.rank_weight=0",
)
# Features of the synthetic world, for tables 2 and 3: each one alone, and with the content vector.
FEATURES = ("item_id", "actor_id", "item_type", "age_h", "content")


def grid(what: str, axes: Axes) -> dict[str, Any]:
    """Return a W&B sweep over the product of `axes`; an axis with a single value is fixed."""
    return {
        "description": what,
        "program": "ligr",
        "method": "grid",
        "metric": {"name": "validation/ne", "goal": "minimize"},
        "parameters": {
            name: {"value": v} if isinstance(v, str | int | float) else {"values": list(v)}
            for name, v in axes.items()
        },
        "command": [
            "ligr",
            "train",
            "--data",
            "${envvar:LIGR_DATA}",
            "--runs",
            "${envvar:LIGR_RUNS}",
            "${args_no_hyphens}",
        ],
    }


def shipped_sweeps() -> dict[str, dict[str, Any]]:
    """Return every shipped sweep by its path under sweeps/."""
    tiny = _tiny() | {f"kuairand-{k}": v for k, v in _kuairand().items()}
    return {f"tiny/{k}": v for k, v in tiny.items()} | {
        f"paper/{k}": v for k, v in _paper().items()
    }


def _tiny() -> dict[str, dict[str, Any]]:
    """Return the sweeps on the data of `ligr demo`."""
    middle = "demo-4"
    upper = "demo-5"
    return {
        "ladder": grid(
            "length, depth, width and table width grow together (LiGR, figures 6-9)",
            {"preset": list(DEMO.presets()), "train.seed": 0},
        ),
        "seeds": grid(
            "more seeds of the small rungs: how much a result moves by chance",
            {"preset": list(DEMO.presets())[:5], "train.seed": [1, 2]},
        ),
        "seq_len": grid(
            "sequence length alone (figure 12)",
            {"preset": middle, "data.seq_len": [16, 32, 64, 128, 256], "train.seed": 0},
        ),
        "depth": grid(
            "the number of historical layers alone (figure 10)",
            {"preset": middle, "model.depth": [1, 2, 4], "train.seed": 0},
        ),
        "embed_dim": grid(
            "the width of the embedding tables alone (figure 11)",
            {"preset": middle, "model.table_width": [4, 8, 16, 32, 64], "train.seed": 0},
        ),
        "width": grid(
            "the width of the blocks alone",
            {"preset": middle, "model.width": [8, 16, 48], "train.seed": 0},
        ),
        "isoflop": grid(
            "equal budgets, spent on models of several widths",
            {
                "preset": "demo-2",
                "model.width": [12, 16, 24, 32, 48, 64],
                "train.flops": [3e10, 1e11, 3e11],
            },
        ),
        "data": grid(
            "the share of the members alone",
            {"preset": middle, "data.fraction": [0.06, 0.12, 0.25, 0.5, 1.0], "train.seed": 0},
        ),
        "architecture": grid(
            "the unified rankers on one ladder, point-wise, with four candidate tokens",
            {
                "preset": list(DEMO.presets())[:7],
                "change": list(UNIFIED.values()),
                "train.seed": SEEDS,
            },
        ),
        "baselines": grid(
            "LiGR, earlier rankers, and the plain forms that its configuration holds",
            {"preset": ["demo-2", "demo-4", upper], "change": BASELINES, "train.seed": SEEDS},
        ),
        "ablations": grid(
            "one thing changed at a time (table 4, appendix A.1)",
            {"preset": middle, "change": ABLATIONS, "train.seed": SEEDS},
        ),
        "features": grid(
            "one feature alone, and the content vector with one more (tables 2 and 3)",
            {"preset": middle, "change": _features(), "train.seed": SEEDS},
        ),
    }


def _kuairand() -> dict[str, dict[str, Any]]:
    """Return the sweeps on the slice of KuaiRand-Pure (experiments/kuairand_law.py)."""
    rungs = list(KUAIRAND.presets())
    middle = rungs[4]
    return {
        "rate": grid(
            "the learning rate of a small and a large rung: does the best one transfer?",
            {"preset": [rungs[2], rungs[6]], "optim.dense_lr": [5e-4, 1e-3, 2e-3, 4e-3, 8e-3]},
        ),
        "ladder": grid(
            "length, depth, width and table width grow together",
            {"preset": rungs, "train.seed": 0},
        ),
        "seeds": grid(
            "more seeds of the small rungs: how much a result moves by chance",
            {"preset": rungs[:5], "train.seed": [1, 2]},
        ),
        "data": grid(
            "the share of the members alone",
            {"preset": middle, "data.fraction": [0.0625, 0.125, 0.25, 0.5, 1.0], "train.seed": 0},
        ),
        "epochs": grid(
            "repeated data: several passes over a quarter of the members and over all",
            {
                "preset": middle,
                "data.fraction": [0.25, 1.0],
                "train.epochs": [1, 2, 3, 4],
                "train.seed": 0,
            },
        ),
        "seq_len": grid(
            "sequence length alone",
            {"preset": middle, "data.seq_len": [16, 32, 64, 128, 256], "train.seed": 0},
        ),
        "depth": grid(
            "the number of historical layers alone",
            {"preset": middle, "model.depth": [1, 2, 4], "train.seed": 0},
        ),
        "width": grid(
            "the width of the blocks alone",
            {"preset": middle, "model.width": [8, 16, 32, 48], "train.seed": 0},
        ),
        "embed_dim": grid(
            "the width of the embedding tables alone",
            {"preset": middle, "model.table_width": [4, 8, 16, 32], "train.seed": 0},
        ),
    }


def _paper() -> dict[str, dict[str, Any]]:
    """Return the sweeps of LiGR 5.1, for the user's own log on a pod."""
    rungs = list(PAPER.presets())
    largest = rungs[-1]
    middle = "paper-3"
    # T = 512, ids 32 wide.
    base: dict[str, Any] = {"preset": middle, "model.depth": 12, "model.width": 192}
    return {
        "ladder": grid(
            "length, depth, width and table width grow together (LiGR, figures 6-9)",
            {"preset": rungs, "train.seed": 0},
        ),
        "seeds": grid(
            "more seeds of the small rungs: how much a result moves by chance",
            {"preset": rungs[:4], "train.seed": [1, 2, 3, 4]},
        ),
        "seq_len": grid(
            "sequence length alone: 16 layers, ids 64 wide (figure 12)",
            {"preset": largest, "data.seq_len": [64, 128, 256, 512, 1024, 2048], "train.seed": 0},
        ),
        "depth": grid(
            "the number of historical layers alone: T = 512, ids 32 wide (figure 10)",
            base | {"model.depth": [1, 2, 4, 8, 12, 16], "train.seed": 0},
        ),
        "embed_dim": grid(
            "the width of the embedding tables alone: 12 layers, T = 512 (figure 11)",
            base | {"model.table_width": [8, 16, 32, 64, 128], "train.seed": 0},
        ),
        "width": grid(
            "the width of the blocks alone: 12 layers, T = 512",
            base | {"model.width": [64, 128, 192, 256, 512], "train.seed": 0},
        ),
        "isoflop": grid(
            "equal budgets, spent on models of several widths, T = 512",
            {
                "preset": middle,
                "model.width": [64, 128, 192, 256, 384, 512],
                "train.flops": [1e16, 1e17, 1e18, 1e19],
            },
        ),
        "data": grid(
            "the share of the members alone",
            {"preset": middle, "data.fraction": [0.03, 0.1, 0.3, 1.0], "train.seed": 0},
        ),
        "architecture": grid(
            "the unified rankers on one ladder, point-wise, with four candidate tokens",
            {"preset": rungs, "change": list(UNIFIED.values()), "train.seed": SEEDS},
        ),
        "baselines": grid(
            "LiGR, earlier rankers, and the plain forms that its configuration holds",
            {"preset": rungs[1:5], "change": BASELINES, "train.seed": SEEDS},
        ),
        "ablations": grid(
            "one thing changed at a time (table 4, appendix A.1)",
            base | {"change": ABLATIONS, "train.seed": SEEDS},
        ),
        "features": grid(
            "one feature alone, and the content vector with one more (tables 2 and 3)",
            base | {"change": _features(), "train.seed": SEEDS},
        ),
    }


def _features() -> list[str]:
    outcome = "dwell_s"  # an outcome is part of the action token, not a feature of the item
    sets = ["none", *FEATURES, *(f"content,{f}" for f in FEATURES if f != "content")]
    return [s if s == "none" else f"model.features={s},{outcome}" for s in sets]


def sweep_text(path: str) -> str:
    """Return the text of a study's file, e.g. "tiny/ladder"."""
    sweep = shipped_sweeps()[path]
    head = (
        "# Written by `python -m ligr_jax.scaling.shipped sweeps`; change it there.\n"
        "# `ligr sweep` runs it without a server, `wandb sweep` and `wandb agent` with one.\n"
    )
    with_name = {"name": path.rsplit("/", 1)[-1], **sweep}
    result: str = head + yaml.safe_dump(with_name, sort_keys=False, width=96)
    return result


def write(directory: Path) -> None:
    """Write every study under `directory`."""
    for path in shipped_sweeps():
        file = directory / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, sweep_text(path))


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "sweeps"))
