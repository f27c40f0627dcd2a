"""Encoded histories of members, least recently used ones dropped first."""

from collections import OrderedDict
from dataclasses import dataclass

import jax

from ligr_jax.serve.activity_layout import Impressions
from ligr_jax.serve.cache import Cache
from ligr_jax.serve.service.requests import Window

Key = tuple[str, int | str]  # version of the artifact, id of the member


@dataclass(frozen=True)
class EncodedHistory:
    """An encoded window of a member.

    Attributes:
        window: the window.
        cache: its encoding, one row.
    """

    window: Window
    cache: Cache

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        arrays = (*jax.tree.leaves(self.cache), self.window.impressions.records)
        total: int = sum(x.nbytes for x in arrays)
        return total

    def begins(self, window: Window) -> bool:
        """Return whether a window begins with the impressions of this one.

        The values are compared, so an impression that was inserted late, or dropped, is noticed.
        """
        own = self.window.impressions
        if self.window.first != window.first or len(own) > len(window.impressions):
            return False
        return all(
            f(own, 0, len(own)) == f(window.impressions, 0, len(own))
            for f in (Impressions.record_bytes, Impressions.id_bytes)
        )


class HistoryCache:
    """Encoded histories by version and member, up to a number of bytes. For one thread."""

    def __init__(self, largest: int) -> None:
        """
        Args:
            largest: bytes of all arrays.
        """
        self.largest = largest
        self.bytes = 0
        self._entries: OrderedDict[Key, EncodedHistory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> EncodedHistory | None:
        """Return the encoded history of a member, now the most recently used one."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def pop(self, key: Key) -> None:
        """Drop the encoded history of a member, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def put(self, key: Key, entry: EncodedHistory) -> None:
        """Store an encoded history, and drop others until all fit."""
        self.pop(key)
        self._entries[key] = entry
        self.bytes += entry.size
        while self.bytes > self.largest:
            self.pop(next(iter(self._entries)))

    def keep_version(self, version: str) -> None:
        """Drop the histories that other versions encoded."""
        for key in [key for key in self._entries if key[0] != version]:
            self.pop(key)
