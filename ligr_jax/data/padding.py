"""A batch of padding alone, made from the configuration of a model without any data."""

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.lookup import bag_rows, table_rows
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import UNKNOWN


def padding_batch(model: ModelConfig, rows: int, impressions: int) -> Batch:
    """Return a batch with the shapes, types and padding values that the data pipeline gives.

    Args:
        model: Features and actions.
        rows: B.
        impressions: N.
    """
    shape = (rows, impressions)
    ids, numeric, vectors = {}, {}, {}
    for name, feature in model.features.items():
        if feature.bag:
            ids[name] = bag_rows(np.full((*shape, feature.bag_size), MISSING), name, feature)
        elif feature.kind == "vector":
            vectors[name] = np.zeros((*shape, feature.width), np.float32)
        elif feature.kind == "numeric":
            numeric[name] = np.full(shape, np.nan, np.float32)
        elif feature.kind == "bucket":
            ids[name] = np.zeros(shape, np.int32)
        else:
            ids[name] = table_rows(np.full(shape, MISSING), name, feature)
    return Batch(
        member=np.zeros(shape, np.int32),
        session=np.zeros(shape, np.int32),
        time=np.zeros(shape, np.float32),
        ids=ids,
        numeric=numeric,
        vectors=vectors,
        labels=np.full((*shape, len(model.actions)), UNKNOWN, np.int8),
        weight=np.zeros(shape, np.float32),
    )
