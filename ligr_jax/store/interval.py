"""Publishing of a growing file of lines at an interval, which is what a killed host loses."""

import logging
import threading
from pathlib import Path

from ligr_jax.store.lease import LostLease, require_owned
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import StoreError, seconds_of, write_object

_log = logging.getLogger(__name__)

INTERVAL = "LIGR_PUBLISH_S"  # environment variable: seconds between two uploads


class PublishedLines:
    """Uploads the complete lines of a file, in a thread; does nothing outside of working copies."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: The file.
        """
        self._path, self._uri = path, uri_of(path)
        self._published = -1  # bytes that the object has
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="publish lines")
        if self._uri is not None:
            self._interval_s = seconds_of(INTERVAL, 60.0)
            self._thread.start()

    def publish(self) -> None:
        """Upload the lines now, if there are new ones.

        Raises:
            LostLease: Another process has taken over the run.
            StoreError: The store does not take them.
        """
        if self._uri is None:
            return
        with self._lock:
            content = self._path.read_bytes()
            content = content[: content.rfind(b"\n") + 1]
            if len(content) != self._published:
                require_owned(self._path)
                write_object(self._uri, content)
                self._published = len(content)

    def close(self) -> None:
        """Upload the last lines and end the thread."""
        if self._uri is not None:
            self._ended.set()
            self._thread.join()
            self.publish()

    def _work(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self.publish()
            except LostLease:
                return  # the training thread reports it at its next row
            except StoreError as e:
                _log.warning(f"{e}; the rows are uploaded later")
