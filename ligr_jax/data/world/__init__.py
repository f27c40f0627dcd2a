"""The synthetic world: a log of a feed with known action probabilities."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.data.world.block import block_response as block_response
    from ligr_jax.data.world.config import Action as Action
    from ligr_jax.data.world.config import Planted as Planted
    from ligr_jax.data.world.config import WorldConfig as WorldConfig
    from ligr_jax.data.world.generate import generate_world as generate_world
    from ligr_jax.data.world.generate import world_schema as world_schema
    from ligr_jax.data.world.response import BlockResponse as BlockResponse
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Action": "config",
            "BlockResponse": "response",
            "Planted": "config",
            "WorldConfig": "config",
            "block_response": "block",
            "generate_world": "generate",
            "world_schema": "generate",
        },
    )
