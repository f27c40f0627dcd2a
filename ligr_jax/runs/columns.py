"""Names of the configuration's columns in a summary and in a table of runs."""

_PREFIX = "config/"


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
