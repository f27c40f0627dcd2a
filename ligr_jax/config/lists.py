"""Lists as text with the quoting rules of CSV: `a,b`, or `"a,b",c` for values with a comma."""

import csv
import io
from collections.abc import Iterable
from typing import Any


def split_list(text: str, delimiter: str = ",") -> list[str]:
    """Return the values of a list without empty values."""
    rows = list(csv.reader([text], delimiter=delimiter))
    return [value for value in rows[0] if value] if rows else []


def join_list(values: Iterable[Any], delimiter: str = ",") -> str:
    """Return values as one text that `split_list` reads."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(map(str, values))
    return out.getvalue()


def value_text(value: Any) -> str:
    """Return a value of a configuration as text that `override` reads."""
    if isinstance(value, list | tuple):
        return join_list(map(value_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
