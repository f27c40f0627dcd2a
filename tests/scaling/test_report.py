"""The report of simulated sweeps: complete, self-contained, correct, and with reasons for gaps."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import main
from ligr_jax.data.schema import BadInput
from ligr_jax.lock import LOCK, Busy, exclusive
from ligr_jax.runs.table import Runs, read_runs
from ligr_jax.scaling import report
from ligr_jax.scaling.report import study, summary_lines, write_report
from ligr_jax.scaling.report.page import page
from tests.scaling.simulated import ALPHA, BEHIND, FLOOR, Numbers, ladder_ne, summary, write_run

VOID = {"meta", "link", "br", "img", "input", "hr"}


def write_ladder(root: Path, rungs: int = 6, **changes: Numbers) -> Path:
    """Write two seeds of a ladder over a decade; `changes` overrides values by run name."""
    rng = np.random.default_rng(0)
    for i in range(rungs):
        for seed in (0, 1):
            row = summary(rng, length=32 + 16 * i, width=32 + 16 * i, seed=seed, ne=0.0)
            row["validation/ne"] += ladder_ne(row["flops_model"])
            write_run(root / f"r{i}-{seed}", row | changes.get(f"r{i}_{seed}", {}))
    return root


class Page(HTMLParser):
    """A parser that checks nesting and collects ids, tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str | None] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_one_report_at_a_time_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of two reports are not mixed; a report can be written while the run is trained."""
    runs = write_ladder(tmp_path, rungs=2)
    write, written = report.write_atomically, list[str]()

    def meet(path: Path, text: str) -> None:
        written.append(path.name)
        if written.count("fit.json") == 1 and path.name == "fit.json":
            with pytest.raises(Busy, match="another process is writing a report there"):
                write_report(runs, resamples=0)
        write(path, text)

    monkeypatch.setattr(report, "write_atomically", meet)
    with exclusive(runs, "is training this run"):
        write_report(runs, resamples=0)
    assert not list(tmp_path.rglob(LOCK))


def test_page_is_valid_and_loads_nothing_from_outside(whole: tuple[Path, Numbers]) -> None:
    site, numbers = whole
    text = (site / "report.html").read_text()
    page = Page(text)
    assert len(text) < 3_000_000
    assert [(k, v) for k, v in page.attributes if v and "//" in v] == []
    assert "@import" not in text
    assert page.tags.count("script") == 2  # the run's name did not become one
    assert "ValueError: <b>width=65</b>" in "".join(page.text)
    assert not list(site.rglob("*.partial"))
    assert json.loads((site / "fit.json").read_text())["lines"] == numbers["lines"]


def test_every_figure_is_written_in_three_formats_with_a_caption(
    whole: tuple[Path, Numbers],
) -> None:
    site, _ = whole
    names = {p.stem for p in (site / "figures").iterdir()}
    axes = ("flops_model", "flops_paper", "device_seconds")
    assert names >= {f"{kind}_{axis}" for axis in axes for kind in ("ne", "click_auc")}
    assert names >= {"dimensions_flops_model", "dimensions_flops_paper", "frontier", "training"}
    assert names >= {"isoflop_ligr", "isoflop_optima_ligr", "comparisons", "forecasts", "noise"}
    endings = sorted((p.stem, p.suffix) for p in (site / "figures").iterdir())
    assert endings == sorted((n, e) for n in names for e in (".csv", ".png", ".svg"))
    page = (site / "report.html").read_text()
    captions = [part.split("</figcaption>")[0] for part in page.split("<figcaption>")[1:]]
    assert len(captions) == len(names)
    assert [c for c in captions if " runs, " not in c or " per shape" not in c] == []
    assert "pairs that the mask allows" in (site / "figures" / "ne_flops_model.svg").read_text()
    points = pl.read_csv(site / "figures" / "ne_flops_model.csv")
    assert len(points) == 24
    assert set(points["series"]) == {"ligr", "hstu"}


def test_every_run_and_its_numbers_are_in_the_table(whole: tuple[Path, Numbers]) -> None:
    site, numbers = whole
    text = "".join(Page((site / "report.html").read_text()).text)
    runs = pl.read_csv(site / "runs.csv")
    assert len(runs) == numbers["finished"] == 45
    for row in runs.iter_rows(named=True):
        assert row["run"] in text
        assert f"{row['validation/ne']:.4f}" in text
        assert f"{row['validation/click/auc']:.4f}" in text


def test_the_law_of_each_architecture_is_recovered(whole: tuple[Path, Numbers]) -> None:
    site, numbers = whole
    text = "".join(Page((site / "report.html").read_text()).text)
    for arm, floor in (("ligr", FLOOR), ("hstu", FLOOR + BEHIND)):
        law = numbers["laws"]["flops_model"][arm]["free"]
        assert law["intervals"]["alpha"][0] < ALPHA < law["intervals"]["alpha"][1]
        assert law["intervals"]["E"][0] < floor < law["intervals"]["E"][1]
        assert f"{law['params']['alpha']:.3f} [" in text
        assert f"{law['params']['gain_per_decade']:.4f} [" in text


def test_architectures_are_compared_by_pairs_of_rung_and_seed(whole: tuple[Path, Numbers]) -> None:
    _, numbers = whole
    paired = next(c for c in numbers["comparisons"] if c["kind"] == "paired")
    assert (paired["arm"], paired["baseline"], paired["pairs"]) == ("hstu", "ligr", 12)
    assert paired["low"] < BEHIND < paired["high"]
    assert "hstu is 0.01" in numbers["lines"][-1]


def test_slopes_of_architectures_are_compared_seed_by_seed_on_every_axis(
    whole: tuple[Path, Numbers],
) -> None:
    """Both architectures have one law but for its level: no difference in slope is shown."""
    site, numbers = whole
    slopes = [s for s in numbers["slopes"] if s["metric"] == numbers["metric"]]
    assert {(s["axis"], s["arm"]) for s in slopes} == {
        (axis, arm) for axis in numbers["axes"] for arm in ("ligr", "hstu")
    }
    of_hstu = next(s for s in slopes if s["arm"] == "hstu" and s["axis"] == "flops_model")
    compared = of_hstu["compared"]
    assert (compared["baseline"], compared["seeds"]) == ("ligr", 2)
    assert compared["slope"]["low"] < 0 < compared["slope"]["high"]
    assert compared["level"]["value"] == pytest.approx(BEHIND, abs=5e-4)
    text = "".join(Page((site / "report.html").read_text()).text)
    assert "Architectures compared" in text
    assert f"{of_hstu['slope']:.4f} [" in text


def test_summary_says_what_to_scale_on_each_compute_axis(whole: tuple[Path, Numbers]) -> None:
    _, numbers = whole
    assert numbers["lines"][0].startswith("scale depth of ligr: ")
    assert "changes with the compute axis" in numbers["lines"][1]
    assert "T (nearly free) on flops_paper" in numbers["lines"][1]


def test_leaking_and_diverged_runs_are_flagged_and_not_fitted(
    whole: tuple[Path, Numbers], tmp_path: Path
) -> None:
    site, numbers = whole
    assert numbers["suspect"] == ["leak"]
    assert "Suspected leak" in (site / "report.html").read_text()
    assert not any("0.4000" in line for line in numbers["lines"])
    assert "leak" not in (site / "figures" / "frontier.csv").read_text()
    root = write_ladder(tmp_path / "s", rungs=3, r1_0={"validation/ne": None}, r2_0={"leaks": True})
    found = study(read_runs(root), resamples=20)
    assert found.diverged == ("r1-0",)
    assert (found.suspect, found.leaking) == ((), ("r2-0",))
    assert any("left out of laws and comparisons: r2-0" in note for note in found.notes)
    assert "r2-0" not in found.table.names
    assert "r2-0 (leaks)" in page(found, [], [])
    (tmp_path / "e" / "x").mkdir(parents=True)
    (tmp_path / "e" / "x" / "error.txt").write_text("boom")
    with pytest.raises(BadInput, match="no finished runs"):
        write_report(tmp_path / "e")
    bare = pl.DataFrame({"validation/ne": [0.9, 0.8], "flops": [1.0, 2.0], "sweep": "a"})
    with pytest.raises(BadInput, match="none of the compute columns flops_model"):
        study(Runs(bare.with_columns(run=pl.Series(["x", "y"])), name="t"))
    with pytest.raises(BadInput, match="--out"):
        write_report(root, tmp_path / "e")


def test_the_largest_rung_is_predicted_from_the_others(whole: tuple[Path, Numbers]) -> None:
    _, numbers = whole
    first = [f for f in numbers["forecasts"] if f["how"] == "largest budget left out"]
    assert {f["run"] for f in first} == {f"{a}5-{s}" for a in ("ligr", "hstu") for s in (0, 1)}
    assert all(abs(f["error"]) < 0.005 for f in first)


def test_few_runs_are_shown_without_a_law_and_empty_sections_say_what_they_need(
    tmp_path: Path,
) -> None:
    root = write_ladder(tmp_path / "s", rungs=2)
    numbers = write_report(root, out=tmp_path / "out", resamples=20)
    assert any("too few" in line for line in numbers["lines"])
    text = "".join(Page((tmp_path / "out" / "report.html").read_text()).text)
    assert "a sweep of budgets times sizes" in text
    assert "a sweep that varies the architecture" in text
    assert (tmp_path / "out" / "figures" / "ne_flops_model.png").exists()


ODD: dict[str, tuple[list[Numbers], str]] = {
    "one run": ([{}], "too few for a law"),
    "none with a finite metric": ([{"validation/ne": None}] * 3, "no usable run"),
    "seeds of one shape": ([{"config/train.seed": i} for i in range(6)], "one compute budget"),
    "a metric that rises": (
        [{"flops_model": 1e9 * 2**i, "validation/ne": 0.8 + 0.01 * i} for i in range(6)],
        "does not fall with compute",
    ),
    "a shape that half of them lack": (
        [{"flops_model": 1e9 * 2**i, "config/data.seq_len": (64, None)[i % 2]} for i in range(6)],
        "every run has the same shape",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_are_reported_with_the_reason_for_what_is_missing(
    tmp_path: Path, name: str
) -> None:
    changes, reason = ODD[name]
    rng = np.random.default_rng(0)
    for i, change in enumerate(changes):
        write_run(tmp_path / f"r{i}", summary(rng, ne=0.8 - 0.01 * i) | change, curve=False)
    found = study(read_runs(tmp_path), resamples=20)
    lines = summary_lines(found)
    assert any(reason in line for line in lines), lines
    Page(page(found, [], lines))


def test_one_pair_of_seeds_is_no_noise_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        write_run(tmp_path / f"r{seed}", summary(rng, seed=seed, ne=0.8))
    found = study(read_runs(tmp_path), resamples=20)
    assert found.noise is None
    assert any("add seeds" in note for note in found.notes)


def test_summary_says_that_dimensions_grow_together(tmp_path: Path) -> None:
    found = study(read_runs(write_ladder(tmp_path / "s")), resamples=20)
    assert "grow together" in summary_lines(found)[0]
    assert "seq_len" in summary_lines(found)[0]


def test_fit_command_prints_a_law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leak = {"validation/ne": 0.4}
    root = write_ladder(
        tmp_path / "s", r3_1={"beats_oracle": True, **leak}, r2_1={"leaks": True, **leak}
    )
    args = ["fit", str(root), "--bootstrap", "20"]
    assert main([*args, "--floor", "oracle", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["params"]["E"] == pytest.approx(0.55)
    assert not {"r3-1", "r2-1"} & set(json.loads(printed.out)["runs"])
    assert "left out r3-1: it beats the oracle" in printed.err
    assert "left out r2-1: it trains on actions of its own session" in printed.err
    assert main([*args, "--metric", "validation/click/auc"]) == 0
    assert "slope " in capsys.readouterr().out
