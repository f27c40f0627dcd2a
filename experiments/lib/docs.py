"""Generator of the documentation's tables from `experiments/results/*.json`: `make results`.

A page has the lines `<!-- table STUDY TABLE -->` or `<!-- study STUDY -->`; what stands between
such a line and the next `<!-- end -->` is replaced by the table, or by the origin of the study's
numbers.
"""

import datetime
import re
import sys
from pathlib import Path
from typing import Any

from lib.results import RESULTS, Table, read_study
from ligr_jax.atomic import write_atomically

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(<!-- (table|study) ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if (current := filled(text)) != text:
            write_atomically(page, current)
            print(page, file=sys.stderr)


def filled(text: str, results: Path = RESULTS) -> str:
    """Return a page with the text of every block as the files of results give it."""

    def block(match: re.Match[str]) -> str:
        first, kind, names, end = match.groups()
        study, _, table = names.partition(" ")
        content = read_study(results / f"{study}.json")
        body = captioned(content["tables"][table]) if kind == "table" else origin(content)
        return f"{first}\n{body}\n\n{end}"

    return BLOCK.sub(block, text)


def captioned(table: Table) -> str:
    return f"*{table.caption}*\n\n{table.markdown()}"


def origin(study: dict[str, Any]) -> str:
    """Return a line with command, date, commit, device and seeds; unknown fields are left out."""
    parts = [f"`{study['command']}`"]
    if study["date"]:
        date = datetime.date.fromisoformat(study["date"])
        parts.append(f"{date.day} {date:%B %Y}")
    parts += [study["device"]] if study["device"] else []
    if study["seeds"]:
        seeds = ", ".join(map(str, study["seeds"]))
        parts.append(f"{'seeds' if len(study['seeds']) > 1 else 'seed'} {seeds}")
    parts += [f"commit `{study['commit']}`"] if study["commit"] else []
    return f"{'; '.join(parts)}; {study['recorded']}."


if __name__ == "__main__":
    main()
