"""Every name that `ligr train --show` prints is given another value once, in a run of two steps."""

import json
from pathlib import Path

import pytest

from ligr_jax.cli import main
from ligr_jax.config import flatten
from ligr_jax.data.manifest import load_manifest
from ligr_jax.runs.directory import load_config
from ligr_jax.scaling.ladder import configure
from tests.train.random_run import random_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

FEATURE = "model.features.NAME."
SMALL = (
    *("data.seq_len=16", "data.context=0.25", "data.fraction=0.5", "optim.batch=4"),
    *("model.width=16", "model.table_width=4", "train.steps=2", "train.log_every=1"),
    *("model.depth=1", "model.set_depth=0", "mesh.data=1", "track.wandb=off", "eval.splits="),
)

# One run for each group of names that can be changed together.
RUNS: dict[str, tuple[str, ...]] = {
    "LiGR's block, tables, optimizer": (
        *("model.features.item_id.rows=40", "model.features.item_id.width=6"),
        *("model.features.item_id.lookup=qr", "model.features.item_id.table=shared"),
        *("model.features.age_days.kind=numeric", "model.features.actor_id.outcome=true"),
        *("model.set_depth=2", "model.heads=4", "model.ffn=swiglu"),
        *(
            "model.ffn_factor=2",
            "model.gate=none",
            "model.attention=silu",
            "model.mask=session_lag",
        ),
        *("model.action_token=actions_and_item", "model.position=relative_time"),
        *("model.max_sessions=8", "model.table_init=0.1", "model.dropout=0.1", "model.remat=true"),
        *("model.unroll=no", "model.implementation=dense", "model.dtype=bfloat16"),
        *("model.actions=like", "model.prior=0.3"),
        *("optim.accumulate=2", "optim.dense_lr=0.01", "optim.table_lr=0.1", "optim.warmup=0.5"),
        *("optim.decay=wsd", "optim.weight_decay=0.1", "optim.table_optimizer=lazy_adam"),
        *("optim.table_weight_decay=0.1", "optim.clip=0.5", "optim.rank_weight=0"),
        *("train.seed=1", "train.eval_every=1", "train.checkpoint_every=1", "train.keep=1"),
        *("train.checkpoint_minutes=1", "train.max_bad_steps=3", "train.epochs=2"),
        *("eval.splits=validation", "eval.batch=2", "eval.cold_below=2"),
        *("track.wandb=offline", "track.project=p", "track.entity=e", "track.group=g"),
    ),
    "muP on a mesh, within a budget, on a day": (
        *("model.parametrization=mup", "model.base_width=8", "model.base_depth=1"),
        *(
            "model.set_depth=1",
            "model.base_set_depth=2",
            "model.base_heads=1",
            "train.steps=0",
            "train.flops=2e6",
        ),
        *("mesh.data=2", "mesh.model=2", "mesh.fsdp=true", "mesh.table_gib=1"),
        *("mesh.placement=auto,item_id:column_wise", "data.edges={edges}"),
    ),
    "HSTU with a head of experts": (
        *("model.kind=hstu", "model.attention_length=16", "model.late_actions=like"),
        *("model.head.kind=ple", "model.head.groups=click,like"),
        *("model.head.gated=true", "model.head.experts=2", "model.head.expert_widths=8"),
        *("model.head.shared_experts=1", "model.head.levels=2", "model.head.widths=8"),
        *("model.head.calibration=true", "model.head.calibration_step=0.25"),
        *("model.head.calibration_features=surface", "model.next_item=item_id"),
        *("optim.table_optimizer=adamw", "optim.bce_weight=0.5", "eval.exclude_seen=false"),
    ),
    "LiRank Ads": (
        *("model.kind=lirank", "model.lirank.variant=ads", "model.lirank.mlp=8"),
        "model.lirank.history=0",
    ),
    "LiRank Feed": (
        *("model.kind=lirank", "model.lirank.cross_layers=1", "model.lirank.mlp=8"),
        *("model.lirank.rank=4", "model.lirank.residual=false", "model.lirank.temperature=2"),
        *("model.lirank.learned_temperature=false", "model.lirank.gated=false"),
        *("model.lirank.experts=2", "model.lirank.chosen=1"),
        *("model.lirank.balance=0.2", "model.lirank.batch_norm=false", "model.lirank.history=4"),
        *("model.lirank.history_width=4", "model.lirank.history_heads=1"),
        *("model.lirank.history_layers=1", "model.lirank.history_last=2"),
        *("model.lirank.wide=item_id",),
    ),
    "Wukong": (
        *("model.kind=wukong", "model.set_depth=0", "model.wukong.fm_outputs=4"),
        *("model.wukong.compress_outputs=4", "model.wukong.rank=4", "model.wukong.mlp=2"),
        *("model.wukong.head=2", "model.wukong.dual_path=true"),
    ),
    "LinkedIn's later options of LiGR": (
        *("model.actions_as=values", "model.residual_scale=true", "data.shuffle_sessions=true"),
        *("data.half_life_days=3", "data.half_life_impressions=8", "optim.pair_weight=0.1"),
        *("model.features.surface.late=true", "model.head.kind=mmoe", "model.head.cross_layers=1"),
        *("model.head.cross_rank=2", "model.head.expert_widths=8", "model.head.widths=8"),
        *("model.features.age_days.kind=bucket", "model.features.age_days.post=true"),
        *("model.features.age_days.edges=1,5", "eval.position=1"),
    ),
    "LiGR in two streams": (
        *("model.kind=ligr_streams", "model.streams.tokens=1", "model.streams.tokenizer=groups"),
        *("model.streams.groups={items}", "model.streams.history=session"),
    ),
    "OneTrans with windows": (
        *("model.kind=onetrans", "model.streams.tokens=4", "model.streams.tokenizer=chunk"),
        *("model.streams.normalize_tokens=true", "model.streams.windows=6", "model.depth=2"),
        *("model.streams.window_schedule=linear", "model.onetrans.activation=relu"),
    ),
    "RankMixer": ("model.kind=rankmixer", "model.streams.tokens=4", "model.rankmixer.norm=post"),
    "TokenMixer-Large with experts": (
        *("model.kind=tokenmixer", "model.streams.tokens=4", "model.streams.base_tokens=2"),
        *("model.tokenmixer.reading=revert", "model.tokenmixer.residual_interval=1"),
        *("model.tokenmixer.auxiliary_weight=0.2", "model.tokenmixer.global_token=false"),
        *("model.tokenmixer.down_init=0.1", "model.tokenmixer.experts=2"),
        *("model.tokenmixer.chosen=2", "model.depth=2"),
    ),
    "HyFormer": (
        *("model.kind=hyformer", "model.streams.tokens=2", "model.streams.queries=6"),
        *("model.hyformer.encoder=swiglu", "model.hyformer.boost=paper"),
    ),
    "ULTRA-HSTU": (
        *("model.kind=ultra", "model.ultra.activation=gate", "model.ultra.local_window=4"),
        *("model.ultra.oldest=1", "model.ultra.truncated_layers=1", "model.depth=2"),
        "model.ultra.truncated_window=3",
    ),
    "from earlier weights": (
        *("--warm-start {earlier}", "--cold-weights {earlier}"),  # train.warm.run, cold_run
        *("train.warm.cold_weight=0.5", "train.warm.fisher_weight=1", "train.warm.examples=8"),
    ),
}
# What other tests show: bags need a log that has them (tests/data/test_bags.py), loader processes
# an interpreter of their own (tests/train/test_workers.py); digests are filled in, never given.
ELSEWHERE = {
    *(f"{FEATURE}bag", f"{FEATURE}bag_size", "data.dir", "data.digest", "data.workers"),
    *("train.warm.run", "train.warm.cold_run", "train.warm.digest"),  # by --warm-start
}


def test_every_name_is_tried(prepared: Path) -> None:
    given = {a.partition("=")[0] for a in (*SMALL, *(a for run in RUNS.values() for a in run))}
    tried = {_pattern(name) for name in given} | ELSEWHERE
    config = configure(load_manifest(prepared), prepared, SMALL)
    shown = {_pattern(name) for name in flatten(config)}
    assert shown - tried == set(), "give each new name of the configuration a value in RUNS"


@pytest.mark.parametrize("name", RUNS)
def test_every_name_works_on_the_command_line(
    name: str, prepared: Path, tmp_path: Path, earlier: Path
) -> None:
    splits = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))["splits"]
    ends = [splits["train"]["start_ms"], *(splits[s]["end_ms"] for s in splits)]
    edges = ",".join(map(str, ends))
    features = configure(load_manifest(prepared), prepared, SMALL).model.features
    known = {"items": "+".join(n for n, f in features.items() if f.is_item), "earlier": earlier}
    words = [w for a in RUNS[name] for w in a.format(edges=edges, **known).split()]
    out = tmp_path / "run"
    assert main(["train", "--data", str(prepared), "--out", str(out), *SMALL, *words]) == 0
    used = flatten(load_config(out))
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] >= 1
    assert summary["bad_steps"] == 0
    assert {w.partition("=")[0] for w in words if "=" in w} <= set(used)


@pytest.fixture(scope="module")
def earlier(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from."""
    config = configure(load_manifest(prepared), prepared, SMALL)
    return random_run(config, tmp_path_factory.mktemp("earlier") / "run")


def _pattern(name: str) -> str:
    """The name with any feature's name replaced."""
    parts = name.split(".")
    return FEATURE + parts[-1] if name.startswith("model.features.") else name
