"""The version of an artifact that is served, replaced while requests are answered.

`ligr export` adds a version and then replaces `current.json`. A thread looks at this file, loads
the new version, compares its golden scores, compiles its programs, and only then puts it in place
of the old one. A version that cannot be served is reported once, and the old one stays.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from ligr_jax.errors import LigrError
from ligr_jax.serve.artifact import Artifact, load_artifact
from ligr_jax.serve.golden_check import check_artifact
from ligr_jax.tables.versions import listed_versions

_log = logging.getLogger(__name__)


class ServedVersion:
    """The artifact that is served, watched for new versions.

    Attributes:
        artifact: the current version, ready to score.
    """

    def __init__(self, directory: Path, prepare: Callable[[Artifact], None], poll_s: float) -> None:
        """
        Args:
            directory: directory or URI of the artifact.
            prepare: called with a new version before it is served; raises LigrError to refuse it.
            poll_s: time between two looks at `current.json`, in seconds; 0: never.

        Raises:
            LigrError: the current version cannot be served.
        """
        self._directory, self._prepare = directory, prepare
        self._refused = ""
        self.artifact = self._load()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, args=(poll_s,), name="versions", daemon=True
        )
        if poll_s:
            self._thread.start()

    @property
    def name(self) -> str:
        """Name of the version."""
        return self.artifact.directory.name

    def refresh(self) -> bool:
        """Serve the current version if it is another one; return whether it changed."""
        names = listed_versions(self._directory)
        if not names or names[0] in (self.name, self._refused):
            return False
        try:
            self.artifact = self._load()
        except LigrError as e:
            self._refused = names[0]
            _log.warning("version %s is not served, %s still is: %s", names[0], self.name, e)
            return False
        _log.info("version %s is served", self.name)
        return True

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _load(self) -> Artifact:
        artifact = load_artifact(self._directory)
        check_artifact(artifact)
        self._prepare(artifact)
        return artifact

    def _watch(self, poll_s: float) -> None:
        while not self._stopped.wait(poll_s):
            try:
                self.refresh()
            except (LigrError, OSError) as e:  # e.g. an object store that does not answer
                _log.warning("cannot look for a new version: %s", e)
