"""Protocols by name, and the comparison of prepared data with the published digest."""

import difflib

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.protocols.protocol import Protocol, protocol_of
from ligr_jax.data.protocols.public import (
    EBNERD_PROTOCOLS,
    KUAIRAND_PROTOCOLS,
    OTHER_PROTOCOLS,
    RATING_PROTOCOLS,
    RECFLOW_PROTOCOLS,
)
from ligr_jax.data.schema import BadInput

_ALL = (
    *KUAIRAND_PROTOCOLS,
    *RECFLOW_PROTOCOLS,
    *EBNERD_PROTOCOLS,
    *RATING_PROTOCOLS,
    *OTHER_PROTOCOLS,
)
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in _ALL}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        BadInput: there is no protocol of this name; the message has the nearest names.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, 3, 0.4)
        raise BadInput(f"no protocol {name!r}; the nearest of all names: {near or [*PROTOCOLS]}")
    return PROTOCOLS[name]


def protocols_of(adapter: str) -> list[Protocol]:
    """Return the protocols of a data set, by the name of its adapter."""
    return [p for p in PROTOCOLS.values() if p.adapter == adapter]


def has_published_digest(manifest: Manifest) -> bool | None:
    """Return whether prepared data have a digest that is published for their protocol.

    Semantic ids that were attached to the data do not count.

    Returns:
        None without a protocol, for another version of it, or if it has no published digest.
    """
    protocol = _present_protocol(manifest)
    if protocol is None or not protocol.digests:
        return None
    attached = manifest.source.get("semantic_ids", {}).get("attached_to")
    return (attached or manifest.digest) in protocol.digests.values()


def protocol_line(manifest: Manifest) -> str:
    """Return a line on the protocol of prepared data and its published digest."""
    name, version = protocol_of(manifest) or ("", 0)
    published = has_published_digest(manifest)
    if published is None:
        outcome = "no digest is published for it; compare the digest with those of other teams"
    elif published:
        outcome = f"digest {manifest.digest} is the published one"
    else:
        known = ", ".join(f"{d} ({files})" for files, d in PROTOCOLS[name].digests.items())
        outcome = (
            f"digest {manifest.digest} differs from the published {known}: other files, or another "
            "version of this package or of its libraries"
        )
    return f"protocol {name}, version {version}: {outcome}"


def _present_protocol(manifest: Manifest) -> Protocol | None:
    """Return the protocol of prepared data if this release has it in the same version."""
    name, version = protocol_of(manifest) or ("", 0)
    protocol = PROTOCOLS.get(name)
    return protocol if protocol is not None and protocol.version == version else None
