"""Training of semantic ids: from a corpus and a configuration to a directory with a model.

A training that was killed continues from its checkpoint and ends with the same bits.
"""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from ligr_jax import contents
from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import read_plain_json
from ligr_jax.progress import Progress
from ligr_jax.runs.directory import lock
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.tracker import JsonLines
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.files import load_arrays, save_arrays
from ligr_jax.sid.model import SidModel, load_model
from ligr_jax.sid.train_rqkmeans import RQKMeansTraining
from ligr_jax.sid.train_rqvae import RQVAETraining
from ligr_jax.stop import stop_request
from ligr_jax.train.loop import Preempted, stop_message

_log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0


class SidTraining(Protocol):
    """A training method. Its state is a pytree of arrays."""

    log_every: int  # updates between rows of metrics

    def __init__(self, config: SidConfig, corpus: Corpus, mean: np.ndarray, scale: float) -> None:
        """Vectors are standardized by `mean` [W] and `scale`."""

    def fresh(self) -> Any: ...

    def put(self, state: Any) -> Any:
        """Move a state of host arrays to the devices."""

    def update(self, number: int, state: Any) -> tuple[Any, Mapping[str, Any]]:
        """Apply update `number`, counted from 1; return the state and metrics."""

    def arrays(self, state: Any) -> dict[str, np.ndarray]: ...


METHODS: dict[str, type[SidTraining]] = {"rqvae": RQVAETraining, "rqkmeans": RQKMeansTraining}


def train_semantic_ids(
    config: SidConfig,
    corpus: Corpus,
    column: str,
    out: Path,
    save_every_s: float = SAVE_EVERY_S,
) -> SidModel:
    """Train to the end and save the model; return a finished model unchanged.

    Args:
        config: configuration.
        corpus: items.
        column: name of the column of vectors.
        out: directory of the model.
        save_every_s: seconds between checkpoints.

    Raises:
        BadInput: `out` has a model of another configuration or corpus, or other files.
        Busy: another process is training in `out`.
        Preempted: a signal requested a stop; the state is saved.
    """
    with lock(out, contents.SID):
        _adopt(
            out, {"config": dataclasses.asdict(config), "column": column, "items": corpus.digest}
        )
        if (out / "model.json").exists():
            _log.info(f"{out} is finished; nothing to do")
            return load_model(out)
        mean, variance = corpus.moments()
        scale = np.sqrt(variance) or 1.0
        training = METHODS[config.method](config, corpus, mean, scale)
        state = _advance(training, config.updates, out, save_every_s)
        common: dict[str, np.ndarray] = {
            "mean": mean.astype(np.float32),
            "scale": np.asarray(scale, np.float32),
        }
        model = SidModel(config, corpus.width, column, common | training.arrays(state))
        model.save(out)
        (out / "checkpoint.npz").unlink(missing_ok=True)
        return model


def _advance(training: SidTraining, last: int, out: Path, every_s: float) -> Any:
    """Return the state after update `last`, continuing from a checkpoint."""
    path = out / "checkpoint.npz"
    first, state = _restored(path, training)
    if first:
        _log.info(f"resuming at step {first} of {last}")
    progress, rows = Progress(last, _log), JsonLines(out, first)
    saved = time.monotonic()
    metrics: Mapping[str, Any] = {}
    with stop_request() as stop, contextlib.ExitStack() as ended:
        ended.callback(rows.close, 0)
        stop.defer()
        for number in range(first + 1, last + 1):
            before = metrics
            state, metrics = training.update(number, state)
            jax.block_until_ready(before)  # two updates at a time: a CPU has few threads
            if number % training.log_every == 0 or number == last:
                row = {k: float(v) for k, v in jax.device_get(metrics).items()}
                rows.log({"step": number, **row})
                progress.show(number, "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
            if stop.is_set() or time.monotonic() - saved >= every_s:
                _save(path, number, state)
                saved = time.monotonic()
            if stop.is_set() and number < last:
                _log.warning(stop_message(stop, number))
                raise Preempted
    return state


def _save(path: Path, number: int, state: Any) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    named = {jax.tree_util.keystr(place): leaf for place, leaf in leaves}
    save_arrays(path, {"number": np.array(number), **named})


def _restored(path: Path, training: SidTraining) -> tuple[int, Any]:
    """Return the number of finished updates, and the state after them."""
    if not path.exists():
        return 0, training.fresh()
    saved = load_arrays(path)
    state = jax.tree_util.tree_map_with_path(
        lambda place, _: saved[jax.tree_util.keystr(place)], jax.eval_shape(training.fresh)
    )
    return int(saved["number"]), training.put(state)


def _adopt(out: Path, about: dict[str, Any]) -> None:
    """Write training.json, or check that the existing one is equal."""
    path, text = out / "training.json", json.dumps(about, indent=1) + "\n"
    if not path.exists():
        if RunFiles(out).metrics.exists():
            raise BadInput(f"{out} holds something else, a run perhaps; choose another --out")
        write_atomically(path, text)
        return
    there, here = read_plain_json(path, "remove it and train again"), json.loads(text)
    old, new = ({**x.pop("config"), **x} for x in (there, here))
    changed = [
        f"  {k}: there {old.get(k)!r}, asked {v!r}" for k, v in new.items() if old.get(k) != v
    ]
    if changed:
        raise BadInput(
            f"{out} holds another training:\n" + "\n".join(changed) + "\n"
            "choose another --out, or give the same values to go on with that one"
        )
