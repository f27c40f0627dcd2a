"""Laws of the file of an activity store: crashes, damage, several processes, `ligr store`."""

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ligr_jax.cli import main
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import DamagedFile
from ligr_jax.errors import LigrError
from ligr_jax.lock import Busy
from ligr_jax.serve import ActivityStore, activity_build, build_store
from ligr_jax.serve.activity_file import ACTIVITY
from tests.serve.stores import histories, prepared_log, rows_to_append, write_rich_log

MEMBERS = list(range(7))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the rows of a log by time, its prepared data, and a whole store."""
    directory = tmp_path_factory.mktemp("data")
    log = write_rich_log(directory / "log", sessions=False)
    rows = rows_to_append(directory / "log", log).sort("timestamp_ms", maintain_order=True)
    rows.write_parquet(directory / "rows.parquet")
    prepared_log(directory / "log", directory / "prepared")
    build_store(directory / "prepared", directory / "whole")
    return directory


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    """A copy of the whole store."""
    shutil.copytree(data / "whole", tmp_path / "copied")
    return tmp_path / "copied"


def after(data: Path, appends: int) -> list[bytes]:
    """Return the histories after the rows of a number of timestamps were appended."""
    times = pl.read_parquet(data / "rows.parquet")["timestamp_ms"].unique(maintain_order=True)
    last = times[appends - 1] if appends else -1
    with ActivityStore(data / "whole") as whole:
        every = [whole.read(member, 10**6).records for member in MEMBERS]
    return [records[records["timestamp_ms"] <= last].tobytes() for records in every]


# Appends the rows of each timestamp together, and prints how many appends were acknowledged.
WRITER = """
import sys
import polars as pl
from ligr_jax.serve import ActivityStore
slates = pl.read_parquet(sys.argv[2]).partition_by("timestamp_ms", maintain_order=True)
with ActivityStore(sys.argv[1]) as store:
    for number in range(int(sys.argv[3]), len(slates)):
        store.append(slates[number])
        print(number + 1, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_was_acknowledged(
    data: Path, tmp_path: Path, child_env: dict[str, str]
) -> None:
    """Readers meanwhile see whole appends only, in order."""
    build_store(data / "prepared", tmp_path / "store", until_ms=0)
    with ActivityStore(data / "whole") as whole:
        finished = whole.read(0, 10**6).records
    rng = random.Random(0)
    done = 0
    with ActivityStore(tmp_path / "store") as store:
        for _ in range(3):
            words = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
            words += [str(data / "rows.parquet"), str(done)]
            with subprocess.Popen(words, env=child_env, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                for _ in range(rng.randrange(10, 30)):
                    done = int(child.stdout.readline())
                    history = store.read(0, 10**6).records
                    assert finished.tobytes().startswith(history.tobytes())
                    rest = finished["timestamp_ms"][len(history) :]
                    assert not len(history) or rest[0] > history["timestamp_ms"][-1]
                time.sleep(rng.uniform(0, 0.01))
                child.send_signal(signal.SIGKILL)
                done = max([done, *map(int, child.stdout.read().split())])
            # Of the append that was interrupted, the store has all or nothing.
            state = [store.read(m, 10**6).records.tobytes() for m in MEMBERS]
            assert state in (after(data, done), after(data, done + 1))
            done += state == after(data, done + 1)


def test_several_writers_wait_for_each_other(data: Path, tmp_path: Path) -> None:
    build_store(data / "prepared", tmp_path / "store", until_ms=0)
    slates = pl.read_parquet(data / "rows.parquet").partition_by(
        "timestamp_ms", maintain_order=True
    )
    with ActivityStore(tmp_path / "store") as one, ActivityStore(tmp_path / "store") as other:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda k: (one, other)[k % 2].append(slates[k]), range(80)))
        assert [one.read(m, 10**6).records.tobytes() for m in MEMBERS] == after(data, 80)


def test_damaged_and_foreign_files_are_refused_with_a_remedy(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / ACTIVITY
    intact = path.read_bytes()
    with ActivityStore(copied) as store:
        records = store.read(2, 10**6).records.tobytes()
    assert main(["verify", str(copied)]) == 0
    # One bit of a history: its member is refused, others are read.
    path.write_bytes(intact.replace(records[300:500], records[300:499] + bytes([records[499] ^ 1])))
    with ActivityStore(copied) as store:
        assert len(store.read(3, 5)) == 5
        with pytest.raises(DamagedFile, match=r"\(chunk 0 of member 2 differs .*\); restore"):
            store.read(2, 10**6)
    assert main(["verify", str(copied)]) == 1
    assert "DAMAGED store" in capsys.readouterr().out
    # The description, and the pages of SQLite.
    path.write_bytes(intact.replace(b'"gap_ms": 1800000', b'"gap_ms": 1800001'))
    with pytest.raises(DamagedFile, match=r"description of the store is damaged .*digest differs"):
        ActivityStore(copied)
    path.write_bytes(intact[: len(intact) // 2])
    with (
        pytest.raises(DamagedFile, match=r"damaged \(.*\); restore the file from a copy, or build"),
        ActivityStore(copied) as store,
    ):
        histories(store, MEMBERS)
    for foreign in (b"", b"member_id,item_id\n" * 100):
        path.write_bytes(foreign)
        with pytest.raises(
            DamagedFile, match="not an activity store but a file of another program"
        ):
            ActivityStore(copied)
    path.write_bytes(intact)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=9")
    with pytest.raises(
        DamagedFile, match="format version 9, but this release reads version 1; bui"
    ):
        ActivityStore(copied)
    path.unlink()
    with pytest.raises(BadInput, match="holds no activity store; make one: `ligr store build"):
        ActivityStore(copied)


def test_a_store_needs_its_data_and_its_item_table(copied: Path) -> None:
    with pytest.raises(BadInput, match=r"data with digest .*, but 0123 is expected; build a store"):
        ActivityStore(copied, data_digest="0123")
    (items,) = copied.glob("items-*.arrow")
    for content in (b"", None):
        items.unlink()
        if content is not None:
            items.write_bytes(content)
        with pytest.raises(
            DamagedFile, match=r"no item table, but 27 .* restore it from .*prepared"
        ):
            ActivityStore(copied)


def test_a_build_is_complete_or_absent(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    words = ["store", "build", str(data / "prepared"), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(activity_build, "_BLOCK", 1)  # many blocks; the last of them fails
        read = activity_build._Copy._read

        def fail_at_the_end(self: activity_build._Copy, index: Any) -> Any:
            if index[-1] == len(self.records) - 1:
                raise KeyboardInterrupt
            return read(self, index)

        patch.setattr(activity_build._Copy, "_read", fail_at_the_end)
        assert main(words) == 130
    assert [p.name for p in out.iterdir() if not p.name.startswith("items-")] == []
    (out / f".{ACTIVITY}.1-2.partial").touch()  # of a process that was killed
    assert main([*words, "--split", "validation"]) == 0
    assert sorted(p.name for p in out.iterdir() if p.name[0] == ".") == []
    capsys.readouterr()

    # The same arguments keep the store and what was appended, others are refused.
    rows = pl.read_parquet(data / "rows.parquet")
    with ActivityStore(out) as store:
        assert 0 < store.append(rows).added < len(rows)
    assert main([*words, "--split", "validation"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 1,200 impressions of 7 members from data w")
    assert main(words) == 1
    assert "Choose another --out, or replace the store" in capsys.readouterr().err
    with ActivityStore(out), pytest.raises(Busy, match="is open in another process; stop the"):
        build_store(data / "prepared", out, newest=10, overwrite=True)
    store = ActivityStore(out)
    store.close()
    assert main([*words, "--until", "2022-04-20", "--newest", "10", "--overwrite"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 70 impressions of 7 members")
    assert main(["store", "compact", str(out), "--newest", "5"]) == 0
    assert capsys.readouterr().out == f"{out}: 35 impressions of 7 members; 35 were dropped\n"
    assert main(["store", "compact", str(out)]) == 1
    assert "give a positive number of impressions" in capsys.readouterr().err


def test_a_store_that_was_replaced_takes_no_appends(copied: Path, data: Path) -> None:
    """The process would write to a file that no other process can see."""
    with ActivityStore(copied) as store:
        (copied / ACTIVITY).rename(copied / "old")
        shutil.copy(data / "whole" / ACTIVITY, copied / ACTIVITY)
        with pytest.raises(LigrError, match="was replaced since it was opened; open it again"):
            store.append(pl.read_parquet(data / "rows.parquet")[:1])
