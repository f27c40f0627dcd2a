"""Predictions of a run for every target of a split, as one Parquet file.

A row is one target impression:

    impression            int64    its number in the prepared data
    member_id             int64
    item_id               int64    null if missing; only where the data have this column
    timestamp_ms          int64    ms since 1970; null if the data has no times
    session               int32    number of the session within the member, from 0
    label_<action>        int8     1 or 0; null if unknown
    logit_<action>        float32
    probability_<action>  float32  the sigmoid of the logit

Ids are those of the prepared data, where a string is its xxh64 (seed 0). Rows are written as the
batches of the evaluation give them, in row groups of about 65,536, so that memory does not grow
with the split; sorted by `impression`, they are the table that `ligr eval` measures. The metadata
of the file (key `ligr`, JSON) name the run, its checkpoint, the split and the digests.

Each process of a run writes its part, and process 0 joins the parts. They need a common file
system or an object store, as checkpoints do.
"""

import contextlib
import glob
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.experimental import multihost_utils

from ligr_jax.atomic import atomic_path, make_directory
from ligr_jax.config import digest
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import file_errors
from ligr_jax.lock import exclusive
from ligr_jax.parallel.processes import is_first
from ligr_jax.progress import log_progress
from ligr_jax.runs.directory import load_config
from ligr_jax.store.mirror import with_uris
from ligr_jax.store.publish import publish, unpublish
from ligr_jax.store.stage import stage, stage_file
from ligr_jax.train.evaluate import Evaluator, open_evaluator, restore_state
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

_GROUP_ROWS = 65_536


def write_predictions(
    run: Path,
    out: Path,
    split: str = "test",
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the predictions of a checkpoint; every process of a run passes the same arguments.

    Args:
        run: run directory.
        out: Parquet file to write; it is complete or absent.
        split: train, validation or test.
        data, batch, assignments: as in `open_evaluator`.
        step: step of the checkpoint; None for the newest.
        overwrite: replace an existing file.

    Returns:
        What the metadata of the file say, and `rows`, the number of predictions.

    Raises:
        BadInput: `out` exists, or the split has no target.
        Busy: another process writes `out`.
        ConfigError, CheckpointError: as in `open_evaluator` and `restore_state`.
    """
    with _only_writer(out, overwrite):
        evaluator = open_evaluator(run, data, batch, assignments)
        state = restore_state(run, evaluator.program, step)
        if not len(evaluator.plan(split)):
            raise BadInput(f"the {split} split holds no target; choose another --split")
        about = {
            "run": with_uris(str(run)),
            "config": digest(load_config(run)),
            "step": int(state.step),
            "split": split,
            "data": evaluator.records.digest,
            "trained_on": evaluator.config.data.digest,
        }
        schema = _schema(evaluator).with_metadata({"ligr": json.dumps(about)})
        rows = _write(out, schema, _tables(evaluator, state, split, schema))
    return {**about, "rows": rows}


def read_prediction_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file that `write_predictions` wrote."""
    about: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"ligr"])
    return about


@contextlib.contextmanager
def _only_writer(out: Path, overwrite: bool) -> Iterator[None]:
    """Lock the file, in process 0; the other processes wait for it."""
    if not is_first():
        _wait_for_all("started")
        make_directory(out.parent)  # the working copy of this host
        yield
        return
    stage_file(out)
    if out.is_dir() or (out.exists() and not overwrite):
        remedy = "name a file" if out.is_dir() else "choose another --out, or give --overwrite"
        raise BadInput(f"--out {out} exists; {remedy}")
    make_directory(out.parent)
    with exclusive(out.parent, f"is writing {out.name}", name=f".{out.name}.lock"):
        for kind in ("partial", "part-*"):  # of a process that was killed
            for stale in out.parent.glob(f".{glob.escape(out.name)}.*{kind}"):
                stale.unlink()
        _wait_for_all("started")
        yield


def _write(out: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    """Write this process's tables; process 0 adds those of the others and returns all rows."""
    parts = [out.with_name(f".{out.name}.part-{k}") for k in range(jax.process_count())]
    mine = parts[jax.process_index()]
    rows = 0
    if not is_first():
        with file_errors("write", mine), pq.ParquetWriter(mine, schema) as writer:
            for table in tables:
                writer.write_table(table)
        publish(mine)
        _wait_for_all("parts written")
    else:
        with atomic_path(out) as path, pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                rows += len(table)
                writer.write_table(table)
            _wait_for_all("parts written")
            stage(out.parent, [part.name for part in parts[1:]], owned=True)
            for part in parts[1:]:
                with pq.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group)
                        rows += len(table)
                        writer.write_table(table)
        for part in parts[1:]:
            part.unlink(missing_ok=True)
            unpublish(part)
    _wait_for_all("finished")
    mine.unlink(missing_ok=True)
    return rows


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"ligr predict: {name}")


def _schema(evaluator: Evaluator) -> pa.Schema:
    fields = [("impression", pa.int64()), ("member_id", pa.int64())]
    if "item_id" in evaluator.records.manifest.columns:
        fields.append(("item_id", pa.int64()))
    fields += [("timestamp_ms", pa.int64()), ("session", pa.int32())]
    for action in evaluator.config.model.actions:
        fields += [
            (f"label_{action}", pa.int8()),
            (f"logit_{action}", pa.float32()),
            (f"probability_{action}", pa.float32()),
        ]
    return pa.schema(fields)


def _tables(
    evaluator: Evaluator, state: TrainState, split: str, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the targets of this process's batches as tables of at least `_GROUP_ROWS` rows."""
    pending: list[tuple[np.ndarray, ...]] = []
    progress = log_progress(_log, "batch")
    for number, (index, is_target, labels, logits) in enumerate(evaluator.batches(state, split), 1):
        pending.append((index[is_target], labels[is_target], logits[is_target]))
        if sum(len(part[0]) for part in pending) >= _GROUP_ROWS:
            yield _table(evaluator, schema, pending)
            pending = []
        progress(number, evaluator.batch_count(split, len(index)))
    if pending:
        yield _table(evaluator, schema, pending)


def _table(
    evaluator: Evaluator, schema: pa.Schema, parts: Sequence[tuple[np.ndarray, ...]]
) -> pa.Table:
    """Return impression numbers [n], labels [n, A] and logits [n, A] as a table."""
    impression, labels, logits = (np.concatenate(arrays) for arrays in zip(*parts))
    columns = _places(evaluator.records, impression)
    for a, action in enumerate(evaluator.config.model.actions):
        label, logit = labels[:, a], logits[:, a].astype(np.float32)
        columns[f"label_{action}"] = pa.array(label.astype(np.int8), mask=label < 0)
        columns[f"logit_{action}"] = logit
        columns[f"probability_{action}"] = probabilities_of(logit)
    return pa.table(columns, schema=schema)


def _places(records: Records, impression: np.ndarray) -> dict[str, Any]:
    """Return the columns that name impressions."""
    member = np.searchsorted(records.offsets, impression, side="right") - 1
    columns: dict[str, Any] = {
        "impression": impression,
        "member_id": records.member_ids[member],
        "timestamp_ms": pa.nulls(len(impression), pa.int64())
        if records.manifest.time_is_order
        else records.take("timestamp_ms", impression),
        "session": records.take("session", impression),
    }
    if "item_id" in records.manifest.columns:
        item = records.feature("item_id", impression)
        columns["item_id"] = pa.array(item, mask=item == MISSING)
    return columns


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Return float32 probabilities, computed in float64."""
    z = logits.astype(np.float64)
    return np.exp(-np.logaddexp(0, -z)).astype(np.float32)
