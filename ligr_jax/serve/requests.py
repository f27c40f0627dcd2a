"""Requests made from prepared data: a window's last session is scored after its history."""

from typing import NamedTuple

import numpy as np

from ligr_jax.config import Config, ConfigError, ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.positions import in_newest_session, positions_where, take_positions
from ligr_jax.data.records import Records


class Requests(NamedTuple):
    """Requests of B members.

    Attributes:
        history: [B, N], the impressions before the request, oldest first.
        candidates: [B, C], the candidates, all of one session; labels are those of the log.
    """

    history: Batch
    candidates: Batch


def window_plan(plan: PackingPlan, windows: np.ndarray) -> PackingPlan:
    """Return a plan whose rows hold one window each.

    Args:
        plan: packing plan of a split.
        windows: int [n], numbers of windows of the plan.
    """
    return PackingPlan(
        capacity=plan.capacity,
        start=plan.start[windows],
        target=plan.target[windows],
        stop=plan.stop[windows],
        bounds=np.arange(len(windows) + 1),
    )


def sample_windows(records: Records, config: Config, count: int) -> Batch:
    """Return windows of the run's data whose lengths cover the range, one in each row.

    Args:
        records: prepared data of the run.
        config: configuration of the run.
        count: number of windows; fewer if the data have fewer.

    Raises:
        ConfigError: no split has a target.
    """
    for split in ("test", "validation", "train"):
        plan = plan_for(records, config, split)
        if plan.targets:
            break
    else:
        raise ConfigError(f"{records.directory} has no impression in any split; prepare it again")
    # Ties are broken by the position in the data, which does not depend on the packing.
    order = np.lexsort([plan.start, plan.stop - plan.start])
    chosen = order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]
    assemble = Assembler(records, window_plan(plan, chosen), config.model)
    return assemble(np.arange(len(chosen)))


def requests_of(windows: Batch, model: ModelConfig, candidates: int) -> Requests:
    """Return the requests whose candidates are the newest sessions of windows.

    Args:
        windows: rows of one member each.
        model: features and actions.
        candidates: largest number of candidates; others are left out.
    """
    newest = in_newest_session(windows)
    before = (windows.member > 0) & ~newest
    return Requests(
        history=take_positions(windows, positions_where(before), model),
        candidates=take_positions(windows, positions_where(newest)[:, :candidates], model),
    )
