"""True responses of the synthetic world to the items of a session, as logged or in another order.

An item whose utility alone is u_0 (`ligr_jax.data.world.block`) has, at position s of a slate,

    u = u_0 - topic satiation n_k / (n_k + h) - actor satiation n_a / (n_a + h)
        - position log(1 + s)                                                    s = 0, 1, ...

    n = earlier items + satiation_later * later items

where n_k counts the other items of the slate with the same main topic, n_a those with the same
actor, and h is `satiation_half`. Each action has logit(p) = intercept + slope u + other terms (see
`Action`). Only a model whose input is the whole session can use these terms. With
`satiation_later` = 1 an order changes u only by the position; with 0 an item satiates for later
items only, as a member who reads from the top would respond.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.world.arithmetic import Floats, Ints, sigmoid
from ligr_jax.data.world.config import ACTIONS, CONTRIBUTIONS, Planted
from ligr_jax.data.world.members import LENGTH_MAX
from ligr_jax.ops.segments import segments

LOG_POSITION = np.round(np.log1p(np.arange(LENGTH_MAX)), 9)  # rounding makes machines agree

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class BlockResponse:
    """True responses to the N logged items of a block.

    Attributes:
        planted: the effects of the session.
        session: [N], number of the session in the block.
        topic, actor, kind: [N], main topic, actor, and index into `ITEM_TYPES`.
        quality: [N].
        affinity: [N], of the member to the actor.
        alone: [N], utility of the item alone at the first position.
    """

    planted: Planted
    session: Ints
    topic: Ints
    actor: Ints
    kind: Ints
    quality: Floats
    affinity: Floats
    alone: Floats

    def probabilities(self, rows: ArrayLike, slate: ArrayLike) -> dict[str, Probabilities]:
        """Return the exact probability of every action if slates of logged items are shown.

        A slate has some of the items of one session in any order. It is shown to the same member,
        and each item at its logged time. The logged slates have the probabilities of the log.

        Args:
            rows: int [n], row numbers in the block, in the order shown within a slate.
            slate: int [n], slate numbers; rows of a slate need not be adjacent.

        Returns:
            float32 [n] by action, `contribution` included.

        Raises:
            ValueError: a row is out of range, or a slate has items of two sessions or the same item
                twice.
        """
        rows, slate = np.asarray(rows, np.int64), np.asarray(slate, np.int64)
        self._check(rows, slate)
        return self.given_utility(rows, self.utility(rows, slate))

    def utility(self, rows: Ints, slate: Ints) -> Floats:
        """Return the utilities u of the items of slates, float64 [n]; see `probabilities`."""
        planted = self.planted
        number = np.unique(slate, return_inverse=True)[1].astype(np.int64)
        position, _ = _same(number)
        loss = planted.position * LOG_POSITION[position]
        for key, limit in (
            (self.topic, planted.topic_satiation),
            (self.actor, planted.actor_satiation),
        ):
            earlier, later = _same(number * (key.max(initial=0) + 1) + key[rows])
            n = earlier + planted.satiation_later * later
            loss += limit * n / (n + planted.satiation_half)
        result: Floats = self.alone[rows] - loss
        return result

    def given_utility(self, rows: Ints, u: Floats) -> dict[str, Probabilities]:
        """Return the probability of every action given the utility, float32 [n] by action.

        p_contribution = 1 - prod (1 - p_a) over like, comment and share, from their float32 values.
        """
        result = {}
        nothing = np.ones_like(u)
        for action in ACTIONS:
            logit = action.intercept + action.slope * u + np.array(action.by_type)[self.kind[rows]]
            logit += action.affinity * self.affinity[rows] + action.quality * self.quality[rows]
            p = result[action.name] = sigmoid(logit).astype(np.float32)
            if action.name in CONTRIBUTIONS:
                nothing *= 1.0 - p.astype(np.float64)
        result["contribution"] = (1.0 - nothing).astype(np.float32)
        return result

    def _check(self, rows: Ints, slate: Ints) -> None:
        """Raise `ValueError` for slates that the world cannot show."""
        n = len(self.session)
        if rows.shape != slate.shape or rows.ndim != 1:
            raise ValueError(f"rows {rows.shape} and slate {slate.shape} must be equal and flat")
        if len(rows) and not 0 <= rows.min() <= rows.max() < n:
            raise ValueError(f"rows from {rows.min()} to {rows.max()}; the block has {n} rows")
        order = np.lexsort((rows, slate))
        rows, slate = rows[order], slate[order]
        within = slate[1:] == slate[:-1]
        repeated = np.flatnonzero(within & (rows[1:] == rows[:-1]))
        if len(repeated):
            row = repeated[0]
            raise ValueError(f"slate {slate[row]} shows row {rows[row]} twice; show it once")
        mixed = np.flatnonzero(within & (self.session[rows[1:]] != self.session[rows[:-1]]))
        if len(mixed):
            row = mixed[0]
            raise ValueError(
                f"slate {slate[row]} has rows {rows[row]} and {rows[row + 1]} of different "
                "sessions; make one slate of each session"
            )


def _same(keys: Ints) -> tuple[Ints, Ints]:
    """Return the numbers of earlier and of later rows with the same key, int64 [n] each."""
    order = np.argsort(keys, kind="stable")
    first, size = segments(keys[order])
    rank = np.arange(len(keys)) - np.repeat(first, size)
    earlier, later = np.empty_like(rank), np.empty_like(rank)
    earlier[order] = rank
    later[order] = np.repeat(size, size) - 1 - rank
    return earlier, later
