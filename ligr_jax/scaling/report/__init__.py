"""`ligr report`: results of sweeps as one self-contained page, figures, and tables of numbers.

`study` computes all results once; the page, the files and the summary for the terminal present
them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.lock import exclusive
from ligr_jax.runs.staged import stage_runs
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling.report.drawn import Drawn
from ligr_jax.scaling.report.page import page
from ligr_jax.scaling.report.panels import panels
from ligr_jax.scaling.report.study import Study, study
from ligr_jax.scaling.report.style import save, write_caption
from ligr_jax.scaling.report.words import summary_lines
from ligr_jax.store.mirror import local_path
from ligr_jax.strict_json import nan_to_null

__all__ = ["Study", "report_json", "study", "summary_lines", "write_report"]


def write_report(
    *paths: str | Path,
    out: str | Path | None = None,
    resamples: int = 1000,
    reload_s: float | None = None,
) -> dict[str, Any]:
    """Write report.html, fit.json, runs.csv and figures/NAME.{png,svg,csv} into `out`.

    Files are written atomically, by one process at a time.

    Args:
        *paths: directories of sweeps, or tables of runs (.csv, .parquet).
        out: output directory; default: the input, if it is one directory.
        resamples: number of bootstrap resamples.
        reload_s: time (seconds) after which the page reloads itself, because the sweeps are being
            trained; None for never.

    Returns:
        The content of fit.json, and `page`, the path of report.html.

    Raises:
        BadInput: no run has finished, the runs have no compute column, or `out` is missing.
        Busy: another process is writing a report into `out`.
    """
    sources = [local_path(path) for path in paths]
    for source in sources:
        stage_runs(source)
    absent = [str(source) for source in sources if not source.exists()]
    if absent:
        raise BadInput(
            f"{absent[0]}: no such sweep directory or table of runs; name the --out of a sweep "
            "or a .csv or .parquet file"
        )
    if out is None and (len(paths) != 1 or not Path(paths[0]).is_dir()):
        raise BadInput(
            "give the report's output directory with --out; it is optional only for one directory "
            "of runs"
        )
    out = local_path(paths[0] if out is None else out)
    results = study(read_runs(*paths), resamples=resamples)
    lines = summary_lines(results)
    drawings = list(panels(results))
    text = page(results, drawings, lines, reload_s)
    numbers = report_json(results, lines)
    # `out` itself may be locked by a training process, which does not change these files.
    with exclusive(out / "figures", "is writing a report there"):
        for drawn in drawings:
            _save(drawn, out / "figures")
        write_atomically(out / "fit.json", json.dumps(numbers, indent=1) + "\n")
        write_atomically(out / "runs.csv", results.runs.table.write_csv())
        write_atomically(out / "report.html", text)
    return numbers | {"page": str(out / "report.html")}


def report_json(results: Study, lines: Sequence[str]) -> dict[str, Any]:
    """Return all numbers of a study as plain JSON values.

    Args:
        results: the study.
        lines: sentences of `summary_lines`.

    Returns:
        The content of fit.json; laws are nested by axis, architecture, and floor ("free" or
        "oracle").
    """
    numbers = {
        "name": results.runs.name,
        "metric": results.metric,
        "axes": list(results.axes),
        "finished": len(results.runs.table),
        "unfinished": [list(pair) for pair in results.runs.unfinished],
        "failed": [list(pair) for pair in results.runs.failed],
        "not_started": results.runs.not_started,
        "suspect": list(results.suspect),
        "leaking": list(results.leaking),
        "diverged": list(results.diverged),
        "oracle": results.oracle,
        "notes": list(results.notes),
        "laws": {
            axis: {
                arm: {floor: law.to_json() for floor, law in kinds.items()}
                for arm, kinds in laws.power.items()
            }
            for axis, laws in results.laws.items()
        },
        "aucs": {
            axis: {
                arm: {name: law.to_json() for name, law in kinds.items()}
                for arm, kinds in laws.auc.items()
            }
            for axis, laws in results.laws.items()
        },
        "no_law": {axis: laws.reasons for axis, laws in results.laws.items() if laws.reasons},
        "forms": [choice.to_json() for choice in results.choices],
        "gains": {
            axis: {arm: asdict(gains) for arm, gains in arms.items()}
            for axis, arms in results.gains.items()
        },
        "forecasts": [
            {"architecture": f.arm, "how": f.how, "beforehand": f.beforehand, **vars(f.outcome)}
            | {"error": f.outcome.error, "covered": f.outcome.covered}
            for f in results.forecasts
        ],
        "isoflop": {arm: fit.to_json() for arm, (_, fit) in results.iso.items()},
        "noise": results.noise and results.noise.to_json(),
        "comparisons": [asdict(c) for c in results.comparisons],
        "slopes": [
            s._asdict() | {"compared": s.compared and asdict(s.compared)} for s in results.slopes
        ],
        "lines": list(lines),
    }
    result: dict[str, Any] = nan_to_null(numbers)
    return result


def _save(drawn: Drawn, directory: Path) -> None:
    """Write the figure with its caption as PNG and SVG, and its points as CSV."""
    write_atomically(directory / f"{drawn.name}.csv", drawn.points.write_csv())
    write_caption(drawn.figure, drawn.caption)
    for ending in ("png", "svg"):
        save(drawn.figure, directory / f"{drawn.name}.{ending}")
