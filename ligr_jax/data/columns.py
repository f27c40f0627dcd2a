"""Names of columns in prepared files.

Columns of the format itself have plain names. Columns of the log carry their role: a feature
`session` is stored as `feature:session`, an action `like` as `action:like`, and its true
probability as `truth:like`. A name in the log therefore cannot collide with a column of the format.
"""

from collections.abc import Iterable

# Plain names in format version 1, which stored the names of the log without their role.
_OWN = (
    *("member_id", "n_context", "n_train", "n_validation", "n_test"),
    *("timestamp_ms", "session", "weight", "is_random", "item_row"),
)


def feature_column(name: str) -> str:
    """Return the stored name of a feature."""
    return f"feature:{name}"


def action_column(name: str) -> str:
    """Return the stored name of an action's labels."""
    return f"action:{name}"


def truth_column(name: str) -> str:
    """Return the stored name of an action's true probabilities."""
    return f"truth:{name}"


def stored_name(column: str, version: int) -> str:
    """Return the name that `column` has in files of a format version."""
    role, colon, name = column.partition(":")
    if version > 1 or not colon:
        return column
    return f"p_{name}" if role == "truth" else name


def ambiguous_names(columns: Iterable[str]) -> list[str]:
    """Return the names that stand for two columns in format version 1.

    Args:
        columns: stored names of the current format version.
    """
    names = [*_OWN, *(stored_name(column, 1) for column in columns)]
    return sorted({name for name in names if names.count(name) > 1})
