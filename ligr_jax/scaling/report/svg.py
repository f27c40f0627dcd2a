"""Inline SVG of a figure: colours follow the page, and each run is a point that can be selected."""

import io
import re
from html import escape

from matplotlib.figure import Figure

from ligr_jax.scaling.report.style import COLORS, DOTS, RED, styled


def svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as an inline <svg>.

    Text stays text, black becomes `currentColor`, and ids get the prefix `name`. Colours become
    `var(--c-0072b2, #0072b2)`, so that a dark page can lighten them. Every mark of `style.dots`
    gets `class="dot"` and `data-run`, the number of its run.
    """
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = _name_runs(text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"#000000|(?<=fill: )black", "currentColor", text)
    for color in dict.fromkeys((*COLORS, RED)):
        text = text.replace(color, f"var(--c-{color[1:]}, {color})")
    text = re.sub(r"\n\s*", "\n", text)
    size = re.search(r'viewBox="[^"]*"', text)
    head = (
        f'<svg {size[0] if size else ""} fill="currentColor" role="group" tabindex="0" '
        f'aria-label="{escape(description)}">'
    )
    return head + text[text.index(">") + 1 :]


def _name_runs(text: str) -> str:
    """Write the run numbers, which are in the id of each series, to its marks."""
    parts = re.split(rf'<g id="{DOTS}([\d.]+)">', text)
    for i in range(1, len(parts), 2):
        for run in parts[i].split("."):
            parts[i + 1] = re.sub(
                r"<use (?!class)", f'<use class="dot" data-run="{run}" ', parts[i + 1], count=1
            )
    return parts[0] + "".join(f'<g class="dots">{part}' for part in parts[2::2])
