"""Labels computed by a comparison, e.g. `--label 'click=value>0'`.

A rule is NAME=LEFT OP RIGHT. LEFT is `value`, which stands for the column NAME, or another column.
OP is one of == != > >= < <= in. RIGHT is a number or a word, or several of them for `in`, written
as a|b|c. If the value is missing, the label is unknown.

Two forms have labels for missing values: `NAME=LEFT is not null` is 1 if a value is present, else
0, and `NAME=LIST contains COLUMN` is 1 if the list in one column has the value of another column,
and 0 if it does not, if it is empty or if it is missing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.ids import parse_ids
from ligr_jax.data.sources.rules import SKIP_HINT, Rules
from ligr_jax.data.sources.text_lists import parse_lists

OWN = "value"
EXAMPLE = (
    "--label 'click=value>0', --label 'like=rating>=4', --label 'buy=event in buy|pay', "
    "--label 'click=click_time is not null' or --label 'click=clicked_items contains item_id'"
)
PRESENT, CONTAINS = "is not null", "contains"
ORDER: dict[str, Callable[[pl.Series, float], pl.Series]] = {
    ">=": lambda x, y: x >= y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    "<": lambda x, y: x < y,
}


@dataclass(frozen=True)
class LabelRule:
    """A comparison that defines the labels of an action.

    Attributes:
        action: name of the action.
        column: column that is compared.
        operator: the operator.
        operand: right-hand side.
        text: the rule as the user wrote it.
    """

    action: str
    column: str
    operator: str
    operand: str
    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (self.column, self.operand) if self.operator == CONTAINS else (self.column,)

    def apply(self, values: Sequence[pl.Series], separator: str) -> tuple[pl.Series, Rules]:
        """Compute labels.

        Args:
            values: values of `columns`, [N] each.
            separator: text between the elements of a list that is stored as text.

        Returns:
            Int8 labels [N], null if unknown; and the rows that cannot be compared.

        Raises:
            TypeError: the type of a column cannot be compared.
        """
        if self.operator == CONTAINS:
            label, rules = _contains(values[0], values[1], separator)
        elif self.operator == PRESENT:
            label, rules = values[0].is_not_null(), []
        else:
            label, rules = self._compared(values[0])
        return label.cast(pl.Int8).alias(self.action), rules

    def _compared(self, values: pl.Series) -> tuple[pl.Series, Rules]:
        known = values.is_not_null()
        numbers, words = _numbers(values), _words(values)
        rules: Rules = []
        if self.operator in ORDER:
            known &= ~numbers.is_nan().fill_null(False)
            label = ORDER[self.operator](numbers, float(self.operand))
            bad = (known & numbers.is_null()).to_numpy()
            rule = f"is not a number to compare with {self.operand} ({self.text}); {SKIP_HINT}"
            rules = [(bad, rule)]
        else:
            known &= ~numbers.is_nan().fill_null(False) if values.dtype.is_float() else True
            options = self.operand.split("|") if self.operator == "in" else [self.operand]
            label = _equals_any(numbers, words, [_lower_boolean(o.strip()) for o in options])
            label = ~label if self.operator == "!=" else label
        return label.fill_null(False).set(~known, None), rules


def parse_label(text: str) -> LabelRule:
    """Parse a rule `NAME=LEFT OP RIGHT`.

    Raises:
        BadInput: the text is not a rule.
    """
    action, equals, expression = text.partition("=")
    left_side = r'\s*(?:"(?P<quoted>[^"]+)"|(?P<plain>.+?))\s*'
    match = re.fullmatch(
        left_side + r"(?P<op>\sis\s+not\s+null)\s*(?P<right>)", expression, re.IGNORECASE
    ) or re.fullmatch(
        left_side + r"(?P<op>==|!=|>=|<=|>|<|=|\sin\s|\scontains\s)\s*(?P<right>.+?)\s*",
        expression,
    )
    if not (action.strip() and equals and match):
        raise BadInput(f"--label {text!r}: write NAME=COLUMN OP VALUE, e.g. {EXAMPLE}")
    operator = " ".join(match["op"].lower().split())
    operator = "==" if operator == "=" else operator
    left = match["quoted"] or match["plain"].strip()
    right = match["right"].strip("'\"")
    if operator in ORDER and _as_number(right) is None:
        raise BadInput(f"--label {text!r}: {right!r} is not a number; e.g. {EXAMPLE}")
    name = action.strip()
    return LabelRule(name, name if left == OWN else left, operator, right, text)


def _contains(lists: pl.Series, values: pl.Series, separator: str) -> tuple[pl.Series, Rules]:
    """Return whether the list of each row has the value of the row, bool [N]; ids are compared."""
    if isinstance(lists.dtype, pl.Array):
        lists = lists.arr.to_list()
    elif lists.dtype in (pl.String, pl.Null):
        lists = parse_lists(lists.cast(pl.String), separator)
    if not isinstance(lists.dtype, pl.List):
        raise TypeError(f"{lists.dtype} values are not lists")
    length = lists.list.len().fill_null(0).to_numpy()
    row = np.repeat(np.arange(len(lists)), length)
    elements, _ = parse_ids(lists.filter(pl.Series(length > 0)).explode())
    wanted, rules = parse_ids(values)
    equal = (elements == wanted[row]) & (elements != MISSING)
    found = np.bincount(row[equal], minlength=len(lists)) > 0
    return pl.Series(found), rules


def _equals_any(numbers: pl.Series, words: pl.Series, options: list[str]) -> pl.Series:
    """Return whether each value equals one of `options`, as a word or as a number."""
    label = words.is_in(options).fill_null(False)
    for option in options:
        number = _as_number(option)
        if number is not None:
            label |= (numbers == number).fill_null(False)
    return label


def _numbers(values: pl.Series) -> pl.Series:
    """Return values as Float64, with null for words and 1 and 0 for true and false."""
    if values.dtype == pl.String:
        spelled = values.str.to_lowercase().replace({"true": "1", "false": "0"})
        return spelled.cast(pl.Float64, strict=False)
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return values.cast(pl.Float64)
    return pl.Series(np.full(len(values), None), dtype=pl.Float64)


def _words(values: pl.Series) -> pl.Series:
    """Return values as text, with booleans in lower case."""
    try:
        words = values.cast(pl.String)
    except pl.exceptions.PolarsError as e:
        raise TypeError(f"{values.dtype} values cannot be compared") from e
    lower = words.str.to_lowercase()
    return lower.zip_with(lower.is_in(["true", "false"]).fill_null(False), words)


def _lower_boolean(word: str) -> str:
    return word.lower() if word.lower() in ("true", "false") else word


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
