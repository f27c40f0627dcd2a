"""Numbers in text cells, as spreadsheets and trackers of experiments write them.

A column is numeric if every cell is a number or a word for a missing value. Separators of thousands
(1,234,567 or 1 234 567) and the decimal comma (3,14) are read where their meaning is certain: the
whole file decides what a comma means, and a column that could be read both ways remains text.
Sizes (70B, 1.5M) are read with the suffixes of `SUFFIXES`, and 12.5% as .125 if all cells have %.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

MISSING = ("n/a", "na", "#n/a", "nan", "null", "none", "-", "–")  # in lower case
# A lower-case m or b may be another unit, so only k has both cases.
SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_SIGN, _EXPONENT = "[+-]?", r"([eE][+-]?\d+)?"
_PLAIN = rf"^{_SIGN}(\d+\.?\d*|\.\d+){_EXPONENT}$"
_GAPS = "[ _'’\u00a0\u2009\u202f]"  # separators of thousands that have no other meaning
_GAPPED = rf"^{_SIGN}[1-9]\d{{0,2}}({_GAPS}\d{{3}})+([.,]\d*)?$"
_THOUSANDS = rf"^{_SIGN}[1-9]\d{{0,2}}(,\d{{3}})+(\.\d*)?{_EXPONENT}$"
_DECIMAL = rf"^{_SIGN}(\d+|[1-9]\d{{0,2}}(\.\d{{3}})+),\d+{_EXPONENT}$"
_DOTTED = rf"^{_SIGN}[1-9]\d{{0,2}}(\.\d{{3}})+$"  # thousands in a file with decimal commas
_EITHER = rf"^{_SIGN}[1-9]\d{{0,2}}[.,]\d{{3}}$"

_SUFFIXED = rf"^({_SIGN}(?:\d+\.?\d*|\.\d+)) ?([{''.join(SUFFIXES)}]?)$"
_PERCENT = rf"^({_SIGN}(?:\d+\.?\d*|\.\d+)) ?%$"

Comma = Literal["thousands", "decimal", "unknown"]


@dataclass(frozen=True)
class NotNumber:
    """The first cell that prevents a text column from being numeric.

    Attributes:
        row: number of the row, from 0.
        value: text of the cell.
        either: whether the cell is a number under both meanings of its comma or point.
    """

    row: int
    value: str
    either: bool

    def __str__(self) -> str:
        if self.either:
            return (
                f"{self.value!r} has a separator of thousands or of decimals; write numbers "
                "without separators of thousands and with a decimal point"
            )
        return (
            f"{self.value!r} is not a number; correct the cell (sizes may end in "
            f"{', '.join(SUFFIXES)}; if one cell has %, all must), or leave it empty to leave the "
            "run out"
        )


def read_numbers(
    frame: pl.DataFrame, delimiter: str, text: Iterable[str] = ()
) -> tuple[pl.DataFrame, dict[str, NotNumber]]:
    """Convert the text columns that hold numbers, or only true and false.

    Args:
        frame: cells without outer white space; null if empty.
        delimiter: delimiter of the file; "" if it has none.
        text: columns that remain text, e.g. names.

    Returns:
        The frame, and the first cell of each other text column that is not a number.
    """
    names = [c for c in frame.columns if frame[c].dtype == pl.String and c not in set(text)]
    cells = {name: _present(frame[name]) for name in names}
    comma = _comma(cells.values(), delimiter)
    read, refused = [], {}
    for name, values in cells.items():
        numbers = _parse(values, comma)
        bad = numbers.is_null() & values.is_not_null()
        if not bad.any():
            read.append(_narrow(numbers, values).alias(name))
        elif (scaled := _scaled(values, comma)) is not None:
            read.append(scaled.alias(name))
        elif values.str.to_lowercase().is_in(["true", "false"]).all():
            read.append((values.str.to_lowercase() == "true").alias(name))
        else:
            row = bad.arg_max() or 0
            value = values[row]
            refused[name] = NotNumber(row, value, either=bool(re.match(_EITHER, value)))
    return frame.with_columns(read), refused


def number_of_cell(text: str) -> float | None:
    """Return the number of one cell, or None if the text is no number or could be two."""
    cell = pl.Series([text.strip()], dtype=pl.String)
    numbers = _parse(cell, "unknown")
    scaled = _scaled(cell, "unknown") if numbers.null_count() else numbers
    return None if scaled is None else float(scaled[0])


def _scaled(cells: pl.Series, comma: Comma) -> pl.Series | None:
    """Return cells such as 70B, or 12.5% in all cells, as numbers; None if they are not such."""
    if comma == "decimal" and cells.str.contains(".", literal=True).any():
        return None  # 1.500M could be two numbers
    if cells.str.contains(_PERCENT).all():
        return cells.str.extract(_PERCENT, 1).cast(pl.Float64) / 100.0
    suffixes = cells.str.extract(_SUFFIXED, 2)
    if not cells.str.contains(_SUFFIXED).all() or not (suffixes != "").any():
        return None
    factor = suffixes.replace_strict({"": 1.0, **SUFFIXES})
    numbers = cells.str.extract(_SUFFIXED, 1).cast(pl.Float64) * factor
    exact = numbers.is_null() | ((numbers.round() == numbers) & (numbers.abs() < 2.0**53))
    return numbers.cast(pl.Int64) if exact.all() else numbers


def _present(values: pl.Series) -> pl.Series:
    """Return the cells with null for words that mean a missing value."""
    return values.set(values.str.to_lowercase().is_in(MISSING), None)


def _comma(columns: Iterable[pl.Series], delimiter: str) -> Comma:
    """Return what a comma means in the numbers of a file, by the cells with one meaning only."""
    thousands = decimal = False
    number = "|".join((_PLAIN, _GAPPED, _THOUSANDS, _DECIMAL, _DOTTED))
    for cells in columns:
        if cells.str.contains(number).all():  # else a comma may separate the values of a list
            in_thousands, in_decimal = cells.str.contains(_THOUSANDS), cells.str.contains(_DECIMAL)
            thousands |= bool((in_thousands & ~in_decimal).any())
            decimal |= bool((in_decimal & ~in_thousands).any())
    if thousands != decimal:
        return "thousands" if thousands else "decimal"
    # A comma file that quotes 1,234 was written where the comma separates thousands.
    return "thousands" if delimiter == "," and not decimal else "unknown"


def _parse(cells: pl.Series, comma: Comma) -> pl.Series:
    """Return cells as Float64, null if they are no numbers or could be two."""
    x = pl.col("x")
    gapped = pl.when(x.str.contains(_GAPPED)).then(x.str.replace_all(_GAPS, "")).otherwise(x)
    if comma == "thousands":
        text = pl.when(x.str.contains(_THOUSANDS)).then(x.str.replace_all(",", "")).otherwise(x)
    elif comma == "decimal":
        pointed = x.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        text = (
            pl.when(x.str.contains(_EITHER) & ~x.str.contains(_DECIMAL))
            .then(None)
            .when(x.str.contains(_DECIMAL) | x.str.contains(_DOTTED))
            .then(pointed)
            .otherwise(x)
        )
    else:
        text = x
    frame = cells.alias("x").to_frame().with_columns(gapped.alias("x"))
    frame = frame.with_columns(text.alias("x"))
    return frame["x"].cast(pl.Float64, strict=False)


def _narrow(numbers: pl.Series, cells: pl.Series) -> pl.Series:
    """Return whole numbers as Int64, so that ids and labels keep their text."""
    whole = cells.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == numbers.null_count() < len(numbers) else numbers
