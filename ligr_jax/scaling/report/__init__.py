"""`ligr report`: what sweeps found, as one self-contained page, figures, and tables of numbers.

`study` computes everything once; the page, the files and the lines for the terminal only word it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.law import plain
from ligr_jax.scaling.report.drawn import Drawn
from ligr_jax.scaling.report.page import page
from ligr_jax.scaling.report.panels import panels
from ligr_jax.scaling.report.study import Study, study
from ligr_jax.scaling.report.style import save, write_caption
from ligr_jax.scaling.report.words import summary_lines
from ligr_jax.scaling.runs import read_runs

__all__ = ["Study", "study", "summary_lines", "to_json", "write_report"]


def write_report(
    *paths: str | Path, out: str | Path | None = None, resamples: int = 1000
) -> dict[str, Any]:
    """Writes report.html, fit.json, runs.csv and figures/NAME.{png,svg,csv} into `out`.

    paths: sweeps' directories, or tables of runs. out: default is the one directory given.
    resamples: of the bootstrap. Each file appears whole or not at all. Returns what fit.json holds,
    with `page` (its path). Raises BadInput where no run has finished, or there is nowhere to write.
    """
    if out is None and (len(paths) != 1 or not Path(paths[0]).is_dir()):
        raise BadInput(f"{len(paths)} inputs and no directory of the report's; name it with --out")
    out = Path(paths[0] if out is None else out)
    found = study(read_runs(*paths), resamples=resamples)
    lines = summary_lines(found)
    drawn = list(panels(found))
    text = page(found, drawn, lines)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for each in drawn:
        _save(each, out / "figures")
    numbers = to_json(found, lines)
    write_atomically(out / "fit.json", json.dumps(numbers, indent=1) + "\n")
    write_atomically(out / "runs.csv", found.runs.table.write_csv())
    write_atomically(out / "report.html", text)
    return numbers | {"page": str(out / "report.html")}


def to_json(found: Study, lines: Sequence[str]) -> dict[str, Any]:
    """All numbers of the study as plain JSON values; laws by axis, architecture and floor."""
    numbers = {
        "name": found.runs.name,
        "metric": found.metric,
        "axes": list(found.axes),
        "finished": len(found.runs.table),
        "unfinished": [list(pair) for pair in found.runs.unfinished],
        "failed": [list(pair) for pair in found.runs.failed],
        "not_started": found.runs.not_started,
        "suspect": list(found.suspect),
        "diverged": list(found.diverged),
        "oracle": found.oracle,
        "notes": list(found.notes),
        "laws": {
            axis: {
                arm: {floor: law.to_json() for floor, law in kinds.items()}
                for arm, kinds in laws.power.items()
            }
            for axis, laws in found.laws.items()
        },
        "aucs": {
            axis: {
                arm: {name: law.to_json() for name, law in kinds.items()}
                for arm, kinds in laws.auc.items()
            }
            for axis, laws in found.laws.items()
        },
        "no_law": {axis: laws.reasons for axis, laws in found.laws.items() if laws.reasons},
        "gains": {
            axis: {arm: asdict(gains) for arm, gains in arms.items()}
            for axis, arms in found.gains.items()
        },
        "forecasts": [
            {"architecture": f.arm, "how": f.how, "beforehand": f.beforehand, **vars(f.outcome)}
            | {"error": f.outcome.error, "covered": f.outcome.covered}
            for f in found.forecasts
        ],
        "isoflop": {arm: fit.to_json() for arm, (_, fit) in found.iso.items()},
        "noise": found.noise and found.noise.to_json(),
        "comparisons": [asdict(c) for c in found.comparisons],
        "lines": list(lines),
    }
    return plain(numbers)


def _save(each: Drawn, directory: Path) -> None:
    """The figure with its caption below it as PNG and SVG; its points as CSV."""
    write_atomically(directory / f"{each.name}.csv", each.points.write_csv())
    write_caption(each.figure, each.caption)
    for ending in ("png", "svg"):
        save(each.figure, directory / f"{each.name}.{ending}")
