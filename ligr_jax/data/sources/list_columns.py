"""Options of `--explode`: the columns whose elements become rows.

A column has a list, text with separated elements, or a list of structs, of which every field is a
list (see `nested`). A template such as `{item_id}-{click}` splits each element into columns.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ligr_jax.data.schema import BadInput

EXAMPLE = "--explode shown, --explode items,labels or --explode 'shown={item_id}-{click}'"


@dataclass(frozen=True)
class ListColumn:
    """A column of which every element becomes a row.

    Attributes:
        name: name in the table, or the common first part of the fields of a list of structs.
        template: how an element is composed of columns, or "".
    """

    name: str
    template: str = ""

    @property
    def text(self) -> str:
        """The option as the user writes it."""
        return f"{self.name}={self.template}" if self.template else self.name

    @property
    def fields(self) -> list[str]:
        """Columns of the template."""
        return re.findall(r"\{([^{}]+)\}", self.template)

    @property
    def pattern(self) -> str:
        """Regular expression with a group for each column of the template."""
        parts = re.split(r"\{[^{}]+\}", self.template)
        return r"^\s*" + r"(\S+)".join(re.escape(part) for part in parts) + r"\s*$"

    def columns(self, present: Sequence[str]) -> list[str]:
        """Return the columns of a table that are lists.

        Raises:
            BadInput: there is none.
        """
        if self.name in present:
            return [self.name]
        fields = [name for name in present if name.startswith(f"{self.name}.")]
        if not fields:
            raise BadInput(
                f"--explode {self.name}: no such column{_similar(self.name, present)}; the "
                f"columns are {list(present)}"
            )
        return fields


def parse_explode(text: str) -> ListColumn:
    """Parse `COLUMN` or `COLUMN=TEMPLATE`.

    Raises:
        BadInput: the template names no column, or one twice.
    """
    name, equals, template = text.partition("=")
    column = ListColumn(name.strip(), template.strip())
    fields = column.fields
    if not column.name or (equals and not fields) or len(set(fields)) < len(fields):
        raise BadInput(f"--explode {text!r}: write COLUMN or COLUMN=TEMPLATE, e.g. {EXAMPLE}")
    return column


def _similar(name: str, present: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, present, 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
