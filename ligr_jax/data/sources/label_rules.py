"""Labels computed by a comparison, e.g. `--label 'click=value>0'`.

A rule is NAME=LEFT OP RIGHT. LEFT is `value`, which stands for the column NAME, or another column.
OP is one of == != > >= < <= in. RIGHT is a number or a word, or several of them for `in`, written
as a|b|c. If the value is missing, the label is unknown.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.rules import SKIP_HINT, Rules

OWN = "value"
EXAMPLE = "--label 'click=value>0', --label 'like=rating>=4' or --label 'buy=event in buy|pay'"
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

    def apply(self, values: pl.Series) -> tuple[pl.Series, Rules]:
        """Compute labels.

        Args:
            values: values of the column, [N].

        Returns:
            Int8 labels [N], null if the value is missing; and the rows that cannot be compared.

        Raises:
            TypeError: the type of the column cannot be compared.
        """
        known = values.is_not_null()
        numbers, words = _numbers(values), _words(values)
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
            rules = []
        out = label.fill_null(False).cast(pl.Int8).set(~known, None)
        return out.alias(self.action), rules


def parse_label(text: str) -> LabelRule:
    """Parse a rule `NAME=LEFT OP RIGHT`.

    Raises:
        BadInput: the text is not a rule.
    """
    action, equals, expression = text.partition("=")
    match = re.fullmatch(
        r'\s*(?:"(?P<quoted>[^"]+)"|(?P<plain>.+?))\s*'
        r"(?P<op>==|!=|>=|<=|>|<|=|\sin\s)\s*(?P<right>.+?)\s*",
        expression,
    )
    if not (action.strip() and equals and match):
        raise BadInput(f"--label {text!r}: write NAME=COLUMN OP VALUE, e.g. {EXAMPLE}")
    operator = match["op"].strip()
    operator = "==" if operator == "=" else operator
    left = match["quoted"] or match["plain"].strip()
    right = match["right"].strip("'\"")
    if operator in ORDER and _as_number(right) is None:
        raise BadInput(f"--label {text!r}: {right!r} is not a number; e.g. {EXAMPLE}")
    name = action.strip()
    return LabelRule(name, name if left == OWN else left, operator, right, text)


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
