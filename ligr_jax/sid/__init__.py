"""Semantic ids: content vectors as short tuples of codes that similar items share (LiGR 3.3).

Letters in this package: W width of a content vector, d width of the latent, N levels, K codes per
level.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.sid.config import SidConfig as SidConfig
    from ligr_jax.sid.corpus import Corpus as Corpus
    from ligr_jax.sid.corpus import open_corpus as open_corpus
    from ligr_jax.sid.measure import Quality as Quality
    from ligr_jax.sid.model import SidModel as SidModel
    from ligr_jax.sid.model import load_model as load_model
    from ligr_jax.sid.rqvae import RQVAE as RQVAE
    from ligr_jax.sid.rqvae import flops_regularizer as flops_regularizer
    from ligr_jax.sid.rqvae import loss_parts as loss_parts
    from ligr_jax.sid.text import title_vectors as title_vectors
    from ligr_jax.sid.text import write_title_vectors as write_title_vectors
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Corpus": "corpus",
            "Quality": "measure",
            "RQVAE": "rqvae",
            "SidConfig": "config",
            "SidModel": "model",
            "flops_regularizer": "rqvae",
            "load_model": "model",
            "loss_parts": "rqvae",
            "open_corpus": "corpus",
            "title_vectors": "text",
            "write_title_vectors": "text",
        },
    )
