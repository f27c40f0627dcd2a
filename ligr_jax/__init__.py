"""ligr_jax: a laboratory for scaling laws of ranking models.

Letters in shapes, used in names (`x_BTD`) and docstrings throughout:

    B rows of a batch           T tokens of a row (two per impression: item, action)
    N impressions of a row      S impressions of a session
    D model width               H attention heads            K width of a head
    G heads of keys and values (H / G query heads share one)
    F feed-forward width        A actions (one task each)    C candidates of a request
    V rows of a table           E width of a table           W width of a content vector
    L layers

Importing this package imports neither JAX nor any accelerator; a public name imports its module on
first use:

    from ligr_jax import Batch, fit_model, load_run
    from ligr_jax.nn import LiGR
    from ligr_jax.ops import attend, attention_rank_loss
"""

import logging
from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.api import BatchPrediction as BatchPrediction
    from ligr_jax.api import TrainedModel as TrainedModel
    from ligr_jax.api import fit_model as fit_model
    from ligr_jax.api import load_run as load_run
    from ligr_jax.config.features import Feature as Feature
    from ligr_jax.config.model import ModelConfig as ModelConfig
    from ligr_jax.config.run import Config as Config
    from ligr_jax.data.batch import Batch as Batch
    from ligr_jax.data.from_frame import batch_from_dicts as batch_from_dicts
    from ligr_jax.data.from_frame import batch_from_frame as batch_from_frame
    from ligr_jax.data.manifest import load_manifest as load_manifest
    from ligr_jax.errors import LigrError as LigrError
    from ligr_jax.messages import show_messages as show_messages
    from ligr_jax.scaling.ladder import configure as configure
    from ligr_jax.train.evaluate import evaluate_run as evaluate_run
    from ligr_jax.train.prediction_file import write_predictions as write_predictions
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Batch": "data.batch",
            "Config": "config.run",
            "Feature": "config.features",
            "LigrError": "errors",
            "ModelConfig": "config.model",
            "BatchPrediction": "api",
            "TrainedModel": "api",
            "batch_from_dicts": "data.from_frame",
            "batch_from_frame": "data.from_frame",
            "configure": "scaling.ladder",
            "evaluate_run": "train.evaluate",
            "fit_model": "api",
            "load_manifest": "data.manifest",
            "load_run": "api",
            "show_messages": "messages",
            "write_predictions": "train.prediction_file",
        },
    )

logging.getLogger(__name__).addHandler(logging.NullHandler())  # see ligr_jax/messages.py

__version__ = "0.2.0"
