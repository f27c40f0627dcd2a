"""ligr_jax: a laboratory for scaling laws of ranking models.

Letters in shapes, used in names (`x_BTD`) and docstrings throughout:

    B rows of a batch           T tokens of a row (two per impression: item, action)
    N impressions of a row      S impressions of a session
    D model width               H attention heads            K width of a head
    G heads of keys and values (H / G query heads share one)
    F feed-forward width        A actions (one task each)    C candidates of a request
    V rows of a table           E width of a table           W width of a content vector
    L layers

Importing this package imports neither JAX nor any accelerator: take what you need from the modules,
e.g. `from ligr_jax.nn.ligr import LiGR`.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # see ligr_jax/messages.py

__version__ = "0.2.0"
