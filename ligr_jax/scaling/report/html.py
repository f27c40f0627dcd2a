"""HTML of tables, numbers and sentences. All text is escaped."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def engineering(value: float) -> str:
    """Return 1.23e13 as 12.3×10¹²: three digits, exponent a multiple of three."""
    if not math.isfinite(value) or value <= 0:
        return "–"
    power = 3 * math.floor(math.log10(value) / 3 + 1e-12)
    if round(value / 10.0**power, 3 - len(str(int(value / 10.0**power)))) >= 1000:
        power += 3
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    lead = f"{value / 10.0**power:.3g}"
    return lead if power == 0 else f"{lead}×10{raised}"


def interval_text(value: float | None, span: Sequence[float] | None, digits: int = 4) -> str:
    """Return "value [low, high]", "value (no interval)", or "–" without a value."""
    if value is None or not math.isfinite(value):
        return "–"
    if span is None or not all(map(math.isfinite, span)):
        return f"{value:.{digits}f} (no interval)"
    return f"{value:.{digits}f} [{span[0]:.{digits}f}, {span[1]:.{digits}f}]"


def sentence(line: str) -> str:
    """Return the line, escaped, with a capital first letter and a full stop."""
    return escape(line[:1].upper() + line[1:].rstrip(".") + ".")


def names(runs: Iterable[str]) -> str:
    """Return the names of runs as a comma-separated list of <code>."""
    return ", ".join(f"<code>{escape(n)}</code>" for n in runs)


def folded(summary: str, body: str) -> str:
    """Return HTML that the reader opens."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, words: int = 1) -> str:
    """Return a table that scrolls sideways, with its caption above it.

    Args:
        head: titles of the columns.
        rows: plain text of the cells.
        caption: caption, and name of the region for assistive technology.
        words: number of leading columns that contain text; the others contain numbers.
    """
    kind = [' class="word"' if i < words else "" for i in range(len(head))]
    titles = "".join(f'<th scope="col"{k}>{escape(h)}</th>' for k, h in zip(kind, head))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kind, row)) + "</tr>"
        for row in rows
    )
    return (
        f'<p class="soft">{escape(caption)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(value: Any, large: bool = False) -> str:
    """Return a cell with its full value, for sorting, and a rounded text; `large`: 12.3×10¹²."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (number and not math.isfinite(value)):
        return '<td data-value="">–</td>'
    if not number:
        text = str(value)
    elif large:
        text = engineering(value)
    else:
        text = f"{value:.4f}" if isinstance(value, float) and abs(value) < 10 else f"{value:,.0f}"
    return f'<td data-value="{escape(str(value))}">{escape(text)}</td>'
