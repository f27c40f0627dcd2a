"""Lists that are stored as text: `a|b|c`, `['a', 'b']`, `["a","b"]` or `[1 2 3]`."""

import polars as pl

# An element of a list in brackets: quoted, or without commas and brackets.
_ELEMENT = r"""'[^']*'|"[^"]*"|[^\s,\[\](){}'"](?:[^,\[\](){}]*[^\s,\[\](){}])?"""
BRACKETS = r"(?s)^\s*[\[({].*[\])}]\s*$"


def parse_lists(values: pl.Series, separator: str) -> pl.Series:
    """Parse text to lists of text.

    Args:
        values: text [N].
        separator: text between elements that are not in brackets.

    Returns:
        List of String [N]; null for null. Elements have no outer white space; an empty one is null.
    """
    text = pl.col("text")
    body = text.str.strip_chars(" \t\r\n[](){}")
    with_commas = body.str.extract_all(_ELEMENT)
    # Brackets without commas and quotes are an array of NumPy, or have one element.
    bracketed = (
        pl.when(body.str.contains(r"[,'\"]"))
        .then(with_commas)
        .otherwise(body.str.extract_all(r"\S+"))
    )
    lists = (
        pl.when(text.str.contains(BRACKETS)).then(bracketed).otherwise(text.str.split(separator))
    )
    frame = pl.DataFrame({"text": values}, schema={"text": pl.String})
    parsed = frame.select(pl.when(text.is_not_null()).then(lists)).to_series()
    element = pl.element().str.strip_chars(" \t\r\n'\"")
    cleaned: pl.Series = parsed.list.eval(pl.when(element.str.len_bytes() > 0).then(element))
    return cleaned.alias(values.name)
