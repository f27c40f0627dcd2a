"""The slice of KuaiRand-Pure: columns, days, and all impressions in memory for the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from ligr_jax.data.sources.source import LogBatch

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

# Chosen on 5 May, with earlier impressions as context. `play_time_ms` is an outcome: it is part of
# earlier sessions' action tokens.
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
class Form:
    """What a preparation contains.

    earlier: impressions without times: left out, history, or history and targets.
    whole_days: whether a session is a day in UTC+8, so that no model sees an action of the day;
        else a pause ends a session.
    context_block: earlier impressions of a session, if they are targets.
    pause_h: hours of the pause.
    """

    earlier: Literal["none", "context", "targets"] = "context"
    whole_days: bool = False
    context_block: int = 10
    pause_h: float = 6.0

    def __str__(self) -> str:
        days = "-days" if self.whole_days else ""
        block = f"-{self.context_block}" if self.earlier == "targets" else ""
        pause = f"-pause{self.pause_h:g}" if self.pause_h != Form.pause_h else ""
        return f"earlier-{self.earlier}{block}{days}{pause}"


@dataclass(frozen=True)
class Rows:
    """All impressions in the order of the prepared data, including those without time (day -1).

    member, day, session: int64 [n]; sessions are counted per member. splits: bool [n] each;
    columns, labels: [n] each, labels -1 if unknown.
    """

    member: np.ndarray
    day: np.ndarray
    session: np.ndarray
    splits: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]


def prepare_days(source: Path, out: Path, form: Form = Form()) -> Path:
    """Prepare the splits: train to 4 May, validation 5 May, test 6 May."""
    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions, parse_time
    from ligr_jax.data.prepare.splits import SplitTimes
    from ligr_jax.data.sources.formats import open_source
    from ligr_jax.data.sources.parts import converted

    log = open_source(source)
    if form.whole_days:
        log = replace(log, sessions=True, parts=tuple(converted(p, _with_days) for p in log.parts))
        log = replace(log, description={**log.description, "sessions": "days"})
    options = PrepareOptions(
        session_gap_ms=round(form.pause_h * HOUR_MS),
        splits=SplitTimes(*(parse_time(t) for t in DAY_ENDS)),
        context_block=form.context_block if form.earlier == "targets" else None,
    )
    prepare(replace(log, context=None) if form.earlier == "none" else log, out, options)
    return out


def _with_days(batch: LogBatch) -> LogBatch:
    """Return a batch whose session ids are days in UTC+8."""
    day = (pl.col("timestamp_ms") + 8 * HOUR_MS) // (24 * HOUR_MS)
    return replace(batch, frame=batch.frame.with_columns(session_id=day))


def read_rows(prepared: Path) -> Rows:
    from ligr_jax.data.records import Records

    records = Records(prepared)
    time_ms = records.column("timestamp_ms")
    stats = records.manifest.splits
    return Rows(
        member=np.repeat(np.arange(len(records.member_ids)), np.diff(records.offsets)),
        day=np.where(time_ms < 0, -1, (time_ms + 8 * HOUR_MS) // (24 * HOUR_MS)),
        session=records.column("session").astype(np.int64),
        splits={k: (s.start_ms <= time_ms) & (time_ms < s.end_ms) for k, s in stats.items()},
        columns={c: records.feature(c) for c in (*VIDEO, *USER, *CONTEXT, *NUMERIC)},
        labels={a: records.label(a) for a in ACTIONS},
    )


def positive_rates(prepared: Path) -> str:
    """Return the rate of each action in the train split, as the value of `model.prior`."""
    from ligr_jax.data.manifest import load_manifest

    rates = load_manifest(prepared).splits["train"].positive_rate
    return ",".join(f"{rates[action]:.6f}" for action in ACTIONS)
