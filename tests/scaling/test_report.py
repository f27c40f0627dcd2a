"""The report of a made-up sweep: whole, self-contained, honest about what cannot be said."""

import argparse
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from ligr_jax.commands import fit as command
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.report import study, summary_lines, write_report
from ligr_jax.scaling.runs import read_runs

TOGETHER = [(16 * 2**i, 1 + i, 16 * 2**i) for i in range(5)]
APART = [(64, 4, 64)] + [
    tuple(64 * f if j == i else 64 for j in range(3)) for i in range(3) for f in (0.5, 2, 4)
]
VOID = {"meta", "link", "br", "img", "input", "hr"}


def make_sweep(root, shapes, seeds=2, gains=(0.01, 0.01, 0.01), **changes):
    rng = np.random.default_rng(0)
    for i, (length, depth, width) in enumerate(s for s in shapes for _ in range(seeds)):
        dims = np.log2([length / 64, depth / 64, width / 64])
        flops = 1e9 * length * depth * width**2
        ne = 0.85 - float(dims @ np.array(gains)) + 2e-4 * rng.normal()
        summary = {
            "run": f"r{i:02d}", "status": "finished", "tokens": 1e6, "seconds": 9.5,
            "params_dense": 1e5, "params_tables": 1e6, "flops_model": flops,
            "flops_paper": flops / 7, "flops_6nd": 6 * flops / 7, "flops_xla": None,
            "config/data.seq_len": length, "config/model.depth": depth,
            "config/model.width": width, "config/model.table_width": width,
            "config/train.seed": i % seeds, "validation/ne": ne, "validation/click/ne": ne,
            "validation/click/auc": 0.7 + 0.01 * np.log10(flops / 1e14),
            "oracle/validation/ne": 0.5, "beats_oracle": False,
        } | changes.get(f"r{i:02d}", {})  # fmt: skip
        run = root / f"r{i:02d}"
        run.mkdir(parents=True)
        (run / "summary.json").write_text(json.dumps(summary))
        rows = [
            {"step": s, "train/loss": ne + 1 / s, "flops_model": flops * s / 50}
            for s in range(1, 51)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


class Page(HTMLParser):
    """Checks nesting and collects ids, tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.attributes, self.text = [], [], [], [], []
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    root = make_sweep(
        tmp_path_factory.mktemp("sweep") / "ladder",
        TOGETHER,
        r03={"beats_oracle": True, "validation/ne": 0.4},
        r04={"run": "<script>alert(1)</script>"},
    )
    (root / "bad").mkdir()
    (root / "bad" / "error.txt").write_text("ValueError: <b>width=65</b>")
    return root, write_report(root)


def test_page_is_whole_and_asks_for_nothing_outside(ladder):
    root, numbers = ladder
    text = (root / "report.html").read_text()
    page = Page(text)
    assert len(text) < 1_500_000
    outside = [(k, v) for k, v in page.attributes if v and "//" in v]
    assert outside == []
    assert "@import" not in text
    assert page.tags.count("script") == 1  # the run's name did not become one
    assert "ValueError: <b>width=65</b>" in "".join(page.text)
    assert {p.name for p in (root / "figures").iterdir()} == {
        "ne_flops_model.png", "ne_flops_paper.png", "auc.png", "training.png"
    }  # fmt: skip
    assert not list(root.rglob("*.part"))
    assert json.loads((root / "fit.json").read_text())["lines"] == numbers["lines"]


def test_every_run_and_its_numbers_are_in_the_table(ladder):
    root, _ = ladder
    text = "".join(Page((root / "report.html").read_text()).text)
    for row in read_runs(root).table.iter_rows(named=True):
        assert row["run"] in text
        assert f"{row['validation/ne']:.4f}" in text
        assert f"{row['validation/click/auc']:.4f}" in text
    assert len((root / "runs.csv").read_text().splitlines()) == 11


def test_run_that_beats_the_oracle_is_flagged_and_not_fitted(ladder):
    root, numbers = ladder
    assert numbers["suspect"] == ["r03"]
    assert "Suspected leak" in (root / "report.html").read_text()
    assert "r03" not in numbers["laws"]["flops_model"]["free"]["runs"]
    assert "0.4000" not in numbers["lines"][1]


def test_dimensions_that_grow_together_are_not_told_apart(ladder):
    _, numbers = ladder
    assert "cannot separate" in numbers["lines"][2]
    assert "seq_len" in numbers["lines"][2]


def test_dimension_that_pays_best_is_found_where_dimensions_vary_apart(tmp_path):
    root = make_sweep(tmp_path / "s", APART, gains=(0.02, 0.005, 0.005))
    found = study(read_runs(root), resamples=50)
    assert summary_lines(found)[2].startswith("scale T: ")
    rows = {r["dimension"]: r for r in found.dimensions["flops_model"]["rows"]}
    assert rows["T"]["gain_per_decade"] == pytest.approx(0.02 / np.log10(2), rel=0.03)
    assert rows["width + table width"]["compute_per_doubling"] == pytest.approx(4, rel=1e-6)


def test_few_runs_are_shown_without_a_law(tmp_path):
    root = make_sweep(tmp_path / "s", TOGETHER[:3], seeds=1)
    numbers = write_report(root, tmp_path / "out")
    assert "too few" in numbers["lines"][0]
    assert len(numbers["lines"]) == 3
    assert "too few" in "".join(Page((tmp_path / "out" / "report.html").read_text()).text)
    assert (tmp_path / "out" / "figures" / "ne_flops_model.png").exists()


def test_diverged_runs_are_left_out_and_none_finished_is_refused(tmp_path):
    root = make_sweep(tmp_path / "s", TOGETHER[:3], seeds=1, r01={"validation/ne": None})
    assert write_report(root)["diverged"] == ["r01"]
    (tmp_path / "e" / "x").mkdir(parents=True)
    (tmp_path / "e" / "x" / "error.txt").write_text("boom")
    with pytest.raises(BadInput, match="no finished runs"):
        write_report(tmp_path / "e")


def test_fit_command_prints_a_law(ladder, tmp_path, capsys):
    root = make_sweep(tmp_path / "s", TOGETHER)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = [str(root), "--bootstrap", "20"]
    assert command.run(parser.parse_args([*args, "--floor", "oracle", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["params"]["E"] == 0.5
    assert command.run(parser.parse_args([*args, "--metric", "validation/click/auc"])) == 0
    assert "slope            0.01 " in capsys.readouterr().out
    command.run(parser.parse_args([str(ladder[0]), "--bootstrap", "20", "--json"]))
    printed = capsys.readouterr()
    assert "r03" not in json.loads(printed.out)["runs"]
    assert "left out r03" in printed.err
