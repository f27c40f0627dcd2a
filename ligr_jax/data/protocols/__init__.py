"""Protocols of public data sets: splits, sessions, columns and filters that have a name."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.data.protocols.protocol import Protocol as Protocol
    from ligr_jax.data.protocols.registry import PROTOCOLS as PROTOCOLS
    from ligr_jax.data.protocols.registry import find_protocol as find_protocol
    from ligr_jax.data.protocols.registry import has_published_digest as has_published_digest
    from ligr_jax.data.protocols.registry import protocols_of as protocols_of
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "PROTOCOLS": "registry",
            "Protocol": "protocol",
            "find_protocol": "registry",
            "has_published_digest": "registry",
            "protocols_of": "registry",
        },
    )
