"""Pieces of HTML: tables, numbers, sentences. Everything that comes from outside is escaped."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def engineering(value: float) -> str:
    """1.23e13 -> 12.3×10¹²: three digits, exponent a multiple of three."""
    if not math.isfinite(value) or value <= 0:
        return "–"
    power = 3 * math.floor(math.log10(value) / 3 + 1e-12)
    if round(value / 10.0**power, 3 - len(str(int(value / 10.0**power)))) >= 1000:
        power += 3
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    lead = f"{value / 10.0**power:.3g}"
    return lead if power == 0 else f"{lead}×10{raised}"


def interval(value: float | None, span: Sequence[float] | None, digits: int = 4) -> str:
    """0.1234 [0.1, 0.2]"""
    if value is None or not math.isfinite(value):
        return "–"
    if span is None or not all(map(math.isfinite, span)):
        return f"{value:.{digits}f} (no interval)"
    return f"{value:.{digits}f} [{span[0]:.{digits}f}, {span[1]:.{digits}f}]"


def sentence(line: str) -> str:
    return escape(line[:1].upper() + line[1:].rstrip(".") + ".")


def names(runs: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(n)}</code>" for n in runs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, words: int = 1) -> str:
    """A table of plain text, the first columns words and the rest numbers, that scrolls sideways.

    The caption stands above it and names the region.
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
    """A cell that sorts by its full value; `large` numbers as 12.3×10¹²."""
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
