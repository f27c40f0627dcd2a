"""Random batches by hand, for tests of models and losses."""

import numpy as np

from ligr_jax.config import Feature, HeadConfig, ModelConfig
from ligr_jax.data.batch import Batch

FEATURES = {
    "item_id": Feature(rows=50),
    "tag": Feature(rows=7, width=4),
    "age": Feature("numeric"),
    "content": Feature("vector", width=3),
    "dwell": Feature("bucket", rows=5, outcome=True),
}
ACTIONS = ("click", "like", "share")
# Features that only heads read: two late ones, and the display position.
HEAD_FEATURES = FEATURES | {
    "price": Feature("numeric", late=True),
    "campaign": Feature(rows=9, width=5, late=True),
    "position": Feature("bucket", post=True),
}
FEED_SR = HeadConfig(
    "mmoe", widths=(6,), experts=3, expert_widths=(5,), cross_layers=2, cross_rank=3
)
Layout = list[list[list[int]]]  # rows -> members -> lengths of sessions


def model_config(**changes: object) -> ModelConfig:
    defaults: dict[str, object] = {
        "features": FEATURES,
        "actions": ACTIONS,
        "width": 16,
        "depth": 3,
        "set_depth": 2,
        "heads": 2,
        "table_width": 8,
    }
    return ModelConfig(**(defaults | changes))  # type: ignore[arg-type]


def random_layout(rng: np.random.Generator, rows: int, impressions: int) -> Layout:
    """Sessions of random lengths, packed; rows are left partly or wholly empty."""
    layout: Layout = []
    for _ in range(rows):
        room, members = int(rng.integers(0, impressions + 1)), []
        while room:
            member: list[int] = []
            for _ in range(rng.integers(1, 5)):
                if room:
                    member.append(int(rng.integers(1, min(4, room) + 1)))
                    room -= member[-1]
            members.append(member)
        layout.append(members)
    return layout


def random_batch(rows: Layout, impressions: int, seed: int = 0, unknown: float = 0.0) -> Batch:
    """A batch of given session lengths: rows -> members -> sessions; the rest is padding."""
    rng = np.random.default_rng(seed)
    shape = (len(rows), impressions)
    member, session = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for r, members in enumerate(rows):
        for number, lengths in reversed(list(enumerate(members, 1))):
            end = sum(sum(m) for m in members[:number])
            member[r, end - sum(lengths) : end] = number
            session[r, end - sum(lengths) : end] = np.repeat(np.arange(len(lengths)), lengths)
    real = member > 0
    labels = rng.integers(0, 2, (*shape, len(ACTIONS)))
    labels[rng.random(labels.shape) < unknown] = -1
    return Batch(
        member=member,
        session=session,
        time=(session * 20.0).astype(np.float32),
        ids={
            n: np.where(real, rng.integers(0, f.rows, shape), 0).astype(np.int32)
            for n, f in FEATURES.items()
            if f.has_table
        },
        numeric={"age": np.where(real, rng.uniform(-1, 1, shape), np.nan).astype(np.float32)},
        vectors={"content": rng.normal(size=(*shape, 3)).astype(np.float32) * real[..., None]},
        labels=np.where(real[..., None], labels, -1).astype(np.int8),
        weight=real.astype(np.float32),
    )


def with_head_features(batch: Batch, seed: int = 0) -> Batch:
    """Return a batch with random values of the features that only heads read."""
    rng = np.random.default_rng(seed)
    real = batch.member > 0
    ids = {
        n: np.where(real, rng.integers(0, HEAD_FEATURES[n].rows, real.shape), 0).astype(np.int32)
        for n in ("campaign", "position")
    }
    price = np.where(real, rng.uniform(-1, 1, real.shape), np.nan).astype(np.float32)
    return batch._replace(ids={**batch.ids, **ids}, numeric={**batch.numeric, "price": price})
