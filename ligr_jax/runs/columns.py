"""Names of metrics and settings in rows of metrics.jsonl, in W&B, and in tables of runs.

A row of metrics.jsonl and its copy in W&B have the same names, with a prefix that groups the panels
of W&B: `train/`, `validation/`, `test/`, `lr/`, `throughput/`, `compute/`, `params/`. In a summary,
which is the row of a run in a table, names of compute and throughput have no prefix
(`ligr fit --axis flops_model`).
"""

LARGEST_INPUT_WAIT = 0.05  # share of the time; above it, `throughput/*` measures the loader
_PREFIX = "config/"
ABOUT = "about"  # group of the W&B configuration with facts about a run, e.g. its commit
_GROUPS = {
    "throughput/": ("mfu", "tokens_per_s", "input_wait", "input_wait_seconds", "packing"),
    "compute/": (
        "flops_model", "flops_paper", "flops_6nd", "flops_xla", "tokens", "impressions", "targets",
        "seconds", "start_seconds", "eval_seconds", "save_seconds",
        "device_seconds",
    ),
    "params/": ("params_dense", "params_tables"),
}  # fmt: skip
_METRICS = {
    name: group + name.removeprefix("params_") for group, names in _GROUPS.items() for name in names
}
_COLUMNS = {metric: name for name, metric in _METRICS.items()}
_RENAMED = {"time_s": "seconds"}  # in rows of earlier releases, which also had no prefixes


def metric_name(column: str) -> str:
    """Return the name in rows and in W&B of a summary's column, e.g. `throughput/mfu` of `mfu`."""
    column = _RENAMED.get(column, column)
    return _METRICS.get(column, column)


def column_of(metric: str) -> str:
    """Return the column of a summary that has a metric, e.g. `mfu` for `throughput/mfu`."""
    return _COLUMNS.get(metric, metric)


def config_column(field: str) -> str:
    """Return the column of a configuration field, e.g. of `model.depth`.

    The name of a group, e.g. `model.`, gives the common prefix of its columns.
    """
    return _PREFIX + field


def is_config_column(column: str) -> bool:
    """Return whether a column has values of a configuration field."""
    return column.startswith(_PREFIX)


def config_field(column: str) -> str:
    """Return the configuration field of a column; other columns are returned unchanged."""
    return column.removeprefix(_PREFIX)


# Settings that are not part of a run's shape: seeds, paths, and how it is computed or logged.
UNSHAPED = {"seed", "out", "directory", "dir", "name", "workers", "remat", "unroll"}
UNSHAPED |= {"implementation", "log_every", "eval_every", "checkpoint_every", "keep"}
UNSHAPED |= {"checkpoint_minutes"}
UNSHAPED_PARTS = tuple(map(config_column, ("track.", "mesh.", f"{ABOUT}.")))


def is_shape(column: str) -> bool:
    """Return whether a column has a setting that is part of a run's shape."""
    leaf = column.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    is_setting = is_config_column(column) and not column.startswith(UNSHAPED_PARTS)
    return is_setting and leaf not in UNSHAPED
