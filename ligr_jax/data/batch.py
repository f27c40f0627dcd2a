"""`Batch`: the input of every model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch_checks import check_batch

Array = Any  # NumPy on the host, JAX on a device


class Batch(NamedTuple):
    """B rows of N impressions. A row has the histories of one or several members, oldest first.

    A named tuple is a pytree, so a batch can be an argument of a function under `jax.jit`.
    `batch_from_frame` and `batch_from_dicts` make a batch from impressions, and the data pipeline
    makes batches from prepared data. `validate` checks a batch made by hand:

        Batch(member=..., session=..., time=..., ids={"item_id": ...}, numeric={}, vectors={},
              labels=..., weight=...).validate(config.model)

    Attributes:
        member: int32 [B, N]: 1, 2, ... for the members of a row in order, 0 in padding, which is at
            the end of a row.
        session: int32 [B, N]: number of the session, counted from 0 for each member of a row.
        time: float32 [B, N]: hours since the first timed impression of the member in the row; 0 if
            the data has no times.
        ids: int32 table rows by feature, [B, N], where row 0 means "missing"; or [B, N, L] for
            features whose rows are combined, where -1 means no row. An empty bag has only -1. A
            missing id with `lookup=qr` is [0, -1].
        numeric: float32 [B, N] by feature, normalized to [-1, 1]; NaN means "missing".
        vectors: float32 [B, N, W] by feature; zeros mean "missing".
        labels: int8 [B, N, A]: 1, 0, or -1 if the action was not recorded.
        weight: float32 [B, N], weight in the loss; 0 in context and in padding.
    """

    member: Array
    session: Array
    time: Array
    ids: Mapping[str, Array]
    numeric: Mapping[str, Array]
    vectors: Mapping[str, Array]
    labels: Array
    weight: Array

    def validate(self, model: ModelConfig) -> "Batch":
        """Check the arrays of a batch against a model.

        Args:
            model: configuration of the model, `config.model` of a run.

        Returns:
            The batch itself.

        Raises:
            BadInput: an array has a wrong shape or type, or a value is not valid. The message has
                the field, the position, the value and the remedy.
        """
        check_batch(self, model)
        return self
