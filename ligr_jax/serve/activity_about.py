"""What an activity store has of the prepared data that it was built from."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ligr_jax.data.manifest import Manifest, parse_manifest
from ligr_jax.digests import DIGEST, DamagedFile, digest_json
from ligr_jax.errors import LigrError

Sessions = Literal["session_id", "gap"]


@dataclass(frozen=True)
class ActivityAbout:
    """Description of an activity store.

    Attributes:
        manifest: manifest of the prepared data, without its shards and index.
        data_digest: digest of the prepared data.
        data: directory of the prepared data.
        sessions: whether sessions are those of the column `session_id`, or follow from gaps.
        gap_ms: a longer gap in time, in milliseconds, starts a session, if sessions follow from
            gaps.
        until_ms: impressions before this time were copied from the prepared data; None: all.
        newest: the most impressions per member that were copied; None: all.
    """

    manifest: Manifest
    data_digest: str
    data: str
    sessions: Sessions
    gap_ms: int
    until_ms: int | None
    newest: int | None

    @property
    def items_file(self) -> str:
        """Name of the item table in the directory of the store, or ""."""
        items = self.manifest.items
        return f"items-{items.xxh64}.arrow" if items else ""

    def to_json(self) -> str:
        """Return the description as JSON text with a digest."""
        content = {**dataclasses.asdict(self), "manifest": self.manifest.content()}
        return json.dumps({**content, DIGEST: digest_json(content)})

    @classmethod
    def from_json(cls, text: str, path: Path) -> "ActivityAbout":
        """Parse a description.

        Args:
            text: the JSON text.
            path: file of the store, for messages.

        Raises:
            DamagedFile: the text is not a description, or has changed.
        """
        try:
            content = json.loads(text)
            if content.pop(DIGEST) != digest_json(content):
                raise ValueError("its digest differs")
            return cls(**{**content, "manifest": parse_manifest(content["manifest"], path)})
        except (ValueError, KeyError, TypeError, AttributeError, LigrError) as e:
            raise DamagedFile(
                f"{path}: the description of the store is damaged ({e}); restore the file from a "
                "copy, or build the store again"
            ) from e
