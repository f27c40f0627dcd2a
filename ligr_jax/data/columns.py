"""Names of columns in prepared files: the format's own are plain, a user's carry their role.

A feature `session` is the column `feature:session`, an action `like` is `action:like`, and its true
probability is `truth:like`, so no name of a user can stand for one of the format's own columns.
"""

from collections.abc import Iterable

# The columns of format version 1, which stored the users' names as they are.
_OWN = (
    *("member_id", "n_context", "n_train", "n_validation", "n_test"),
    *("timestamp_ms", "session", "weight", "is_random", "item_row"),
)


def feature(name: str) -> str:
    return f"feature:{name}"


def action(name: str) -> str:
    return f"action:{name}"


def truth(name: str) -> str:
    """The true probability of an action."""
    return f"truth:{name}"


def stored(column: str, version: int) -> str:
    """The name that `column` has in the files of a format version."""
    role, colon, name = column.partition(":")
    if version > 1 or not colon:
        return column
    return f"p_{name}" if role == "truth" else name


def ambiguous(columns: Iterable[str]) -> list[str]:
    """Names that stand for two columns in format version 1; columns: as version 2 has them."""
    names = [*_OWN, *(stored(column, 1) for column in columns)]
    return sorted({name for name in names if names.count(name) > 1})
