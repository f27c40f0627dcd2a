"""Lists as one text: `a,b`, and `"a,b",c` where a value has a comma or a quote, as in CSV files."""

import csv
import io
from collections.abc import Iterable
from typing import Any


def split_list(text: str, delimiter: str = ",") -> list[str]:
    """The values of a list; empty ones are left out."""
    rows = list(csv.reader([text], delimiter=delimiter))
    return [value for value in rows[0] if value] if rows else []


def join_list(values: Iterable[Any], delimiter: str = ",") -> str:
    """The inverse of `split_list`."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(map(str, values))
    return out.getvalue()


def value_text(value: Any) -> str:
    """A value of a configuration as `override` reads it."""
    if isinstance(value, list | tuple):
        return join_list(map(value_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
