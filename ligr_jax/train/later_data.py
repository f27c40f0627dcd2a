"""Other data than those of the training, prepared in the same way: opened to evaluate a run.

The data have their own histories and splits. Features are scaled by the statistics of the training
data, and what is rare is counted in the period of the training, so that the numbers are those that
the model would have had if it had been evaluated on these data at the end of its training.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ligr_jax.config import Config, ConfigError, ModelConfig
from ligr_jax.data.assemble import check_columns
from ligr_jax.data.manifest import Manifest, load_manifest
from ligr_jax.data.records import Records
from ligr_jax.data.sources.times import format_time
from ligr_jax.runs.trained_data import TrainedData, load_trained_data
from ligr_jax.train.data import open_verified
from ligr_jax.train.preflight import require_rows_for_ids

_log = logging.getLogger(__name__)

# Parts of `Manifest.source` that define what ids and labels mean.
_MEANINGS = {
    "format": "ids of another adapter can have another coding",
    "labels": "rules of labels that differ give other actions of the same name",
}


class LaterData(NamedTuple):
    """Data to evaluate a run on.

    Attributes:
        records: the data, with the statistics of the training data.
        trained: the same data with the train split of the run, for counts of training impressions.
    """

    records: Records
    trained: Records


def open_later_data(run: Path, config: Config, directory: Path) -> LaterData:
    """Open prepared data that a run was not trained on.

    Args:
        run: directory of the run.
        config: its configuration.
        directory: the prepared data.

    Raises:
        ConfigError: the data do not fit the model; the message names the field.
    """
    known = load_trained_data(run, config)
    manifest = load_manifest(directory)
    require_same_schema(config.model, known.manifest, manifest, directory)
    statistics = {name: known.manifest.columns[name] for name in config.model.features}
    records = open_verified(directory, (), manifest.digest, statistics)
    require_rows_for_ids(config.model, records)
    for line in _differences(known, records):
        _log.warning(line)
    if known.manifest.split_per_member:
        return LaterData(records, records)
    train = known.manifest.splits["train"]
    edges = (train.start_ms, train.end_ms, train.end_ms, train.end_ms)
    return LaterData(records, Records(directory, edges, manifest.digest))


def require_same_schema(
    model: ModelConfig, trained: Manifest, later: Manifest, directory: Path
) -> None:
    """Refuse data whose columns, ids or labels mean something else than those of the training.

    Raises:
        ConfigError: names the field, both values and the remedy.
    """
    try:
        check_columns(model, later)
    except ConfigError as e:
        raise ConfigError(f"{directory} does not fit the run: {e}") from e
    fields = [
        (f"column {name!r}: {field}", *(getattr(m.columns[name], field) for m in (trained, later)))
        for name in model.features
        for field in ("kind", "outcome", "width")
    ]
    fields += [
        (f"source.{name} ({why})", trained.source.get(name), later.source.get(name))
        for name, why in _MEANINGS.items()
    ]
    fields += [("time_is_order", trained.time_is_order, later.time_is_order)]
    fields += [("split_per_member", trained.split_per_member, later.split_per_member)]
    if set(model.features) & set(_semantic_columns(trained, later)):
        models = [m.source.get("semantic_ids", {}).get("model") for m in (trained, later)]
        fields.append(("source.semantic_ids.model (codes of another model)", *models))
    for field, before, now in fields:
        if before != now:
            raise ConfigError(
                f"{directory} does not fit the run: {field} is {now!r}, and {before!r} in the data "
                "of the training; prepare the data as those of the training"
            )


def _semantic_columns(*manifests: Manifest) -> Iterator[str]:
    """Yield the names of columns of semantic ids."""
    for manifest in manifests:
        if "semantic_ids" in manifest.source:
            yield from (n for n in manifest.columns if n.startswith("sid") and n[3:].isdigit())


def _differences(known: TrainedData, records: Records) -> Iterator[str]:
    """Yield what the reader of the metrics has to know."""
    yield (
        f"{records.directory} has digest {records.digest}, and the run was trained on "
        f"{known.digest}: histories and splits are those of {records.directory}, and features are "
        "scaled by the statistics of the training data"
    )
    options = [m.source.get("options", {}) for m in (known.manifest, records.manifest)]
    gaps = [o.get("session_gap_ms") for o in options]
    if gaps[0] != gaps[1]:
        yield f"sessions end after a gap of {gaps[1]} ms, and of {gaps[0]} ms in the training"
    if records.manifest.time_is_order:
        return
    end = known.manifest.splits["train"].end_ms
    for name in ("validation", "test"):
        split = records.manifest.splits[name]
        if split.impressions and split.start_ms < end:
            yield (
                f"the {name} split begins at {format_time(split.start_ms)}, before the end of the "
                f"training at {format_time(end)}: the model was trained on some of its rows"
            )
