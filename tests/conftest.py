"""Shared by all tests: eight simulated devices, quick compilation, a small prepared log."""

import gc
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.xla import flags

# Before anything imports JAX.
os.environ["XLA_FLAGS"] = flags(devices=8)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache" / os.environ.get("PYTEST_XDIST_WORKER", "xla")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["WANDB_MODE"] = "offline"

import pytest

from tests.data.logs import write_log
from tests.prng import quick_keys as with_quick_keys

OnMessage = Callable[[Callable[[str], None]], None]

# Traces and compiled programs are many objects that live long: look through them seldom.
gc.set_threshold(100_000, 20, 100)


# Files that take longest, by processor time; each is the work of one process.
_LONGEST = (
    "scaling/test_sweep.py",
    "train/test_two_stream_mup.py",
    "train/test_mup.py",
    "train/test_vmapped.py",
    "train/test_loop.py",
    "wandb/test_mirror.py",
    "store/test_pod.py",
    "launch/test_slurm.py",
    "train/test_lirank.py",
    "test_peers.py",
    "serve/test_artifact.py",
    "serve/test_parity.py",
    "nn/test_ligr.py",
    "train/test_mesh.py",
    "train/test_processes.py",
    "wandb/test_dashboard.py",
    "train/test_incremental.py",
    "commands/test_options.py",
    "wandb/test_sweep.py",
    "nn/test_lirank.py",
    "sid/test_train.py",
    "nn/test_variants.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, and small ones last: the two processes of a suite end together."""
    tests = Path(__file__).parent
    rank = {str(tests / name): -k for k, name in enumerate(reversed(_LONGEST), 1)}
    items.sort(key=lambda item: str(item.path), reverse=True)
    items.sort(key=lambda item: rank.get(str(item.path), 0))


# Reasons that hold in CI too: real data that are not in the repository, and accelerators.
_SKIPS_IN_CI = (
    "no slice of KuaiRand",
    "no MovieLens",
    "no sample of",
    "no fixture of",
    "needs a GPU",
    "needs a TPU",
)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, which installs what tests need (.ci/run), a test that was skipped proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "LIGR_CI" not in os.environ or reporter is None:
        return
    for report in reporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(known in reason for known in _SKIPS_IN_CI):
            reporter.write_line(f"skipped in CI: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def on_message() -> Iterator[OnMessage]:
    """`on_message(f)` calls f with every message of the package; what f raises, the caller gets."""
    logger = logging.getLogger("ligr_jax")
    handlers = []

    def listen(f: Callable[[str], None]) -> None:
        handler = logging.Handler()
        handler.emit = lambda record: f(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        handlers.append(handler)

    level = logger.level
    logger.setLevel(logging.INFO)
    yield listen
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.fixture
def said(on_message: OnMessage) -> list[str]:
    """Messages that the package logs during a test."""
    messages: list[str] = []
    on_message(messages.append)
    return messages


@pytest.fixture(scope="module")
def quick_keys() -> Iterator[None]:
    """Random keys whose programs compile fast; a module that compares its numbers with those of
    another process cannot use them."""
    with with_quick_keys():
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared directory: 3,000 impressions of 60 members, with vectors and the truth."""
    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions
    from ligr_jax.data.sources.canonical import canonical_source

    directory = tmp_path_factory.mktemp("data")
    write_log(directory / "log", rows=3000, members=60, vector=4, truth=True)
    options = PrepareOptions(shard_rows=1000)
    prepare(canonical_source(directory / "log"), directory / "prepared", options)
    return directory / "prepared"


@pytest.fixture(scope="session")
def child_env() -> dict[str, str]:
    """Environment of child processes: that of the tests, with two devices."""
    return {**os.environ, "XLA_FLAGS": flags(devices=2), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run never interrupted, for tests to copy."""
    from ligr_jax.train.loop import train
    from tests.train.runs import small_config

    out = tmp_path_factory.mktemp("runs") / "whole"
    train(small_config(prepared), out)
    return out


@pytest.fixture(scope="session")
def artifact_of_finished(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of that run with one size of arrays, for tests to copy."""
    from ligr_jax.serve.write import ExportOptions, export_artifact

    out = tmp_path_factory.mktemp("artifact") / "out"
    options = ExportOptions(candidates=16)  # as many as a row of the run has impressions
    export_artifact(finished, out, options, assignments=["mesh.data=1"])
    return out


@pytest.fixture
def copied_functions(artifact_of_finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of that run copy its functions: lowering them takes most of the time of an export."""
    from ligr_jax.serve.artifact import FUNCTIONS, load_artifact

    artifact = load_artifact(artifact_of_finished)

    def copy(version: Path, *_: object) -> dict[str, list[int]]:
        shutil.copytree(artifact.directory / FUNCTIONS, version / FUNCTIONS)
        return dict(artifact.manifest.functions)

    monkeypatch.setattr("ligr_jax.serve.write._write_functions", copy)
