"""The slice of KuaiRand-Pure: columns, days, and all impressions in memory for the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SLICE = Path(__file__).parents[3].parent / "shared" / "data" / "kuairand_pure"
HOUR_MS = 3_600_000
DAY_ENDS = "2022-05-05T00:00+08:00", "2022-05-06T00:00+08:00"  # of train, of validation
ACTIONS = ("click", "long_dwell", "like", "contribution")
VIDEO = ("item_id", "actor_id", "tag", "video_type", "upload_type", "music_type")
USER = (
    "user_active_degree",
    "user_follows",
    "user_fans",
    "user_friends",
    "user_registered",
)
CONTEXT = ("surface", "hour")
NUMERIC = ("duration_ms", "video_age_days")

# Chosen on 5 May. `play_time_ms` is an outcome: it is part of earlier sessions' action tokens.
LIGR: Mapping[str, Any] = {
    "model.features": ",".join((*VIDEO, *USER, *CONTEXT, *NUMERIC, "play_time_ms")),
    "model.features.actor_id.width": 2,  # most authors have one video
    "model.actions": ",".join(ACTIONS),
    "model.width": 32,
    "model.depth": 1,
    "model.set_depth": 0,
    "model.heads": 2,
    "model.action_token": "actions_and_item",
    "model.table_width": 8,
    "model.table_init": 0.05,
    "data.seq_len": 128,
    "optim.batch": 8,
    "optim.dense_lr": 0.0015,
    "optim.table_optimizer": "adamw",
    "optim.table_lr": 0.02,
    "optim.table_weight_decay": 0.1,
    "optim.rank_weight": 0.0,
    "train.epochs": 1,
    "train.checkpoint_every": 1000,
    "train.log_every": 100,
    "track.wandb": "off",
}


@dataclass(frozen=True)
class Rows:
    """All impressions in the order of the prepared data, including those without time (day -1).

    member, day: int64 [n]; splits: bool [n] each; columns, labels: [n] each, labels -1 if unknown.
    """

    member: np.ndarray
    day: np.ndarray
    splits: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]


def prepare_days(source: Path, out: Path, context_block: int | None = None) -> Path:
    """Prepare the splits: train to 4 May, validation 5 May, test 6 May; session gap six hours.

    Args:
        source: the slice.
        out: directory to write.
        context_block: train on the earlier rows too, in sessions of this many; None: context only.
    """
    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions, parse_time
    from ligr_jax.data.prepare.splits import SplitTimes
    from ligr_jax.data.sources.formats import open_source

    splits = SplitTimes(*(parse_time(t) for t in DAY_ENDS))
    prepare(
        open_source(source), out, PrepareOptions(6 * HOUR_MS, splits, context_block=context_block)
    )
    return out


def read_rows(prepared: Path) -> Rows:
    from ligr_jax.data.records import Records

    records = Records(prepared)
    time_ms = records.column("timestamp_ms")
    stats = records.manifest.splits
    return Rows(
        member=np.repeat(np.arange(len(records.member_ids)), np.diff(records.offsets)),
        day=np.where(time_ms < 0, -1, (time_ms + 8 * HOUR_MS) // (24 * HOUR_MS)),
        splits={k: (s.start_ms <= time_ms) & (time_ms < s.end_ms) for k, s in stats.items()},
        columns={c: records.feature(c) for c in (*VIDEO, *USER, *CONTEXT, *NUMERIC)},
        labels={a: records.label(a) for a in ACTIONS},
    )


def positive_rates(prepared: Path) -> str:
    """Return the rate of each action in the train split, as the value of `model.prior`."""
    from ligr_jax.data.manifest import load_manifest

    rates = load_manifest(prepared).splits["train"].positive_rate
    return ",".join(f"{rates[action]:.6f}" for action in ACTIONS)
