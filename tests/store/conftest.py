"""An S3 server for the tests of this folder, and hosts with caches of their own."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ligr_jax.store.mirror import local_path
from ligr_jax.store.publish import publish_tree
from tests.store.s3 import S3

OnHost = Callable[[str], None]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty server that the package finds by the environment."""
    server = S3()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_REGION": "us-east-1",
        "GOOGLE_BASE_URL": server.url,
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(
            {"gcs_base_url": server.url, "disable_oauth": True, "client_email": ""}
            | {"private_key": "", "private_key_id": ""}
        ),
        "LIGR_STORE_RETRY_S": "5",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def on_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnHost:
    """`on_host(name)` gives this process the cache of a host, which is empty at first."""

    def use(name: str) -> None:
        monkeypatch.setenv("LIGR_CACHE", str(tmp_path / name))

    use("host-0")
    return use


@pytest.fixture
def data(prepared: Path, s3: S3, on_host: OnHost) -> str:
    """The URI of prepared data, which another host has uploaded."""
    on_host("publisher")
    shutil.copytree(prepared, local_path("s3://b/data"))
    publish_tree(local_path("s3://b/data"), "manifest.json")
    return "s3://b/data"
