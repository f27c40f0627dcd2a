"""The description of a checkpoint: its format version, leaves and tables, compared before reading.

A step that another release wrote, or that belongs to another model, is refused; it is not damaged.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import RENAMED_VALUES, TableShape
from ligr_jax.runs.checkpoint_files import CheckpointError
from ligr_jax.runs.files import RunFiles
from ligr_jax.tables.layout import Layout, layout
from ligr_jax.tables.table import TABLES
from ligr_jax.train.state import TrainState

# Format of checkpoints. Version 1, of releases before 0.2, has no field `version`, and the earlier
# names of placements.
FORMAT_VERSION = 2


def require_readable_version(path: Path, saved: dict[str, Any]) -> None:
    """Refuse a checkpoint of a newer format, in which the same names may have another meaning.

    Raises:
        CheckpointError: the message has both versions and the remedy.
    """
    version = saved.get("version", 1)
    if version not in range(1, FORMAT_VERSION + 1):
        raise CheckpointError(
            f"{path} has format version {version}, and this release reads 1 to {FORMAT_VERSION}; "
            "nothing was changed: install the release of ligr_jax that wrote it, or a newer one"
        )


def describe_layout(tables: Layout) -> dict[str, Any]:
    """Return the JSON values from which `layout_in` makes the layout again."""
    return {
        "model": tables.model,
        "placements": dict(tables.placements),
        "shapes": {t: [s.rows, s.width] for t, s in tables.spans.items()},
    }


def layout_in(path: Path, described: Mapping[str, Any], configured_tables: Layout) -> Layout:
    """Return the layout of the tables in a checkpoint.

    Args:
        path: directory of the step.
        described: result of `describe_layout` when the step was saved.
        configured_tables: layout of the configuration on this mesh.

    Raises:
        CheckpointError: the tables differ from those of the configuration.
    """
    configured = {t: [s.rows, s.width] for t, s in configured_tables.spans.items()}
    # Early releases did not save the shapes.
    in_file = described.get("shapes", {t: configured.get(t) for t in described["placements"]})
    for name in sorted(configured | in_file):
        if configured.get(name) != in_file.get(name):
            raise _mismatch(path, f"table {name}", in_file.get(name), configured.get(name))
    shapes = {t: TableShape(*shape) for t, shape in configured.items()}
    new_names = RENAMED_VALUES["mesh.placement"]
    placements = {t: new_names.get(p, p) for t, p in described["placements"].items()}
    return layout(shapes, placements, 1, described["model"])


def require_same_leaves(
    path: Path, saved: dict[str, list[Any]], target: TrainState, same_layout: bool
) -> None:
    """Refuse a checkpoint whose leaves differ from those of the configuration.

    Args:
        path: directory of the step.
        saved: digest, dtype and shape of each leaf; early releases saved no shape.
        target: shapes and types of the configuration, with the layout of the checkpoint.
        same_layout: whether tables have the same layout on this mesh; otherwise their rows have
            other padding.

    Raises:
        CheckpointError: the message has the leaf, and both types and shapes.
    """
    configured = {
        jax.tree_util.keystr(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    for name in sorted(configured | saved):
        if name not in saved or name not in configured:
            missing = configured.get(name)
            wanted = None if missing is None else f"{missing.dtype} {list(missing.shape)}"
            raise _mismatch(path, f"leaf {name}", saved.get(name, [0, None])[1], wanted)
        leaf = configured[name]
        _, dtype, *shapes = saved[name]
        shape = shapes[0] if shapes else list(leaf.shape)
        is_table = f"['{TABLES}']" in name or "['rows']" in name
        same_shape = shape == list(leaf.shape) or (is_table and not same_layout)
        if dtype != str(leaf.dtype) or not same_shape:
            raise _mismatch(
                path, f"leaf {name}", f"{dtype} {shape}", f"{leaf.dtype} {list(leaf.shape)}"
            )


def _mismatch(path: Path, what: str, saved: Any, configured: Any) -> CheckpointError:
    return CheckpointError(
        f"{path} does not fit the configuration: {what} is {saved or 'missing'} in the checkpoint "
        f"and {configured or 'missing'} by the configuration; nothing was changed: restore "
        f"{RunFiles(path.parents[1]).config} as the run wrote it, or give the values it has"
    )
