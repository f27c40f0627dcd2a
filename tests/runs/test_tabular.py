"""Tables of runs as trackers and spreadsheets write them are read, or refused with a remedy."""

import bz2
import gzip
import io
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.table import read_runs

ROWS = {"name": ["a", "b", "c"], "flops": [1e12, 1.5e13, 1e14], "loss": [2.5, None, 2.25]}
PLAIN = "name,flops,loss\na,1e12,2.5\nb,15000000000000,\nc,1e14,2.25\n"
QUOTED = re.sub(r"[^,\n]+|(?<=,)(?=\n)", r'"\g<0>"', PLAIN)


def parquet() -> bytes:
    file = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(file)
    return file.getvalue()


FILES: dict[str, bytes] = {
    "plain.csv": PLAIN.encode(),
    "UPPER.CSV": b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
    "quoted.csv": QUOTED.encode(),
    "words.csv": PLAIN.replace("15000000000000,", "15000000000000,n/a").encode(),
    "nan.tsv": PLAIN.replace("0000,", "0000,NaN").replace(",", "\t").encode(),
    "excel.TSV": PLAIN.replace(",", "\t").encode("utf-16"),
    "bars.csv": PLAIN.replace(",", "|").encode(),
    "thousands.csv": PLAIN.replace("15000000000000", '"15,000,000,000,000"').encode(),
    "gaps.csv": PLAIN.replace("15000000000000", "15 000 000\u202f000_000").encode(),
    # A German spreadsheet: 2,250 alone could be 2250, and 2,5 decides.
    "german.csv": b"name;flops;loss\na;1e12;2,5\nb;15.000.000.000.000;\nc;1e14;2,250\n",
    # Sizes and percentages, in every cell of their columns.
    "sizes.csv": PLAIN.replace("1e12", "1T")
    .replace("15000000000000", "15 T")
    .replace("1e14", "100000B")
    .encode(),
    "percent.csv": PLAIN.replace("2.5", "250%").replace("2.25", "225 %").encode(),
    "small.csv.gz": gzip.compress(PLAIN.encode()),
    "small.csv.BZ2": bz2.compress(PLAIN.encode()),
    "small.csv.zst": pa.compress(PLAIN.encode(), "zstd", asbytes=True),
    "rows.parquet": parquet(),
    "ROWS.PQ": parquet(),
    "rows.jsonl": b'{"name": "a", "flops": 1e12, "loss": 2.5}\n'
    b'{"flops": "1.5e13", "loss": NaN, "name": "b"}\n{"name": "c", "flops": 1e14, "loss": 2.25}\n',
    "list.json": b'[{"name": "a", "flops": 1e12, "loss": 2.5}, {"name": "b", "flops": 1.5e13},'
    b' {"name": "c", "flops": 1e14, "loss": 2.25}]',
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    table = read_runs(tmp_path / name).table
    assert table["run"].to_list() == ROWS["name"]
    assert table["flops"].cast(pl.Float64).to_list() == ROWS["flops"]
    assert table["loss"].to_list() == ROWS["loss"]


REFUSED: dict[str, tuple[bytes, str]] = {
    "letter.csv": (b"flops,loss\n1,2.5\n2,2.4O\n", r"row 2, column 'loss': '2.4O' is not a number"),
    "empty.csv": (b"", "empty file"),
    "header.csv": (b"flops,loss\n", "the table has no rows"),
    "twice.csv": (b"loss,loss\n1,2\n", r"\['loss'\] appear twice in the header; rename them"),
    "excel.csv": (b"sep=;\nflops;loss\n1;2\n", "line 1 is 'sep=', not column names; remove"),
    "long.csv": (b"a,b\n1,2\n1,2,3\n", r"row 2: 3 fields where the header has 2 .*; correct the"),
    "latin.csv": (b"a,b\n1,\xe9\n", r"not UTF-8 text in line 2 .*; convert it to UTF-8$"),
    "quote.csv": (b'a,b\n1,"2\n1,2\n', "a quote that is not closed"),
    "cut.csv.gz": (gzip.compress(PLAIN.encode())[:-9], "damaged or incomplete compressed data"),
    "cut.parquet": (parquet()[:-9], "not a complete Parquet file"),
    "cut.jsonl": (b'{"loss": 1}\n{"loss": 2', "line 2: .* is not JSON .*one JSON object per line"),
    "lists.jsonl": (b'{"loss": 1}\n[2]\n', "line 2: .* is not an object"),
    "book.xlsx": (b"PK", "export a spreadsheet as CSV"),
    # Thousands or decimals: no cell of the file decides.
    "either.tsv": (b"flops\tloss\n1e6\t2,512\n1e7\t2,345\n", "row 1, column 'loss': '2,512' has a"),
    "both.csv": (b"flops;loss\n1,000,000;2,5\n1e7;2,345\n", "row 1, column 'flops': '1,000,000'"),
    # A lower-case m or b may be another unit, and 12 among percentages may be 12 %.
    "units.csv": (b"flops,loss\n7b,2.5\n70b,2.4\n", r"'7b' is not a number; .* may end in k, K, M"),
    "shares.csv": (b"flops,loss\n1,12.5%\n2,12\n", r"'12.5%' .*; if one cell has %, all must"),
    "point.csv": (b"flops;loss\n1.000;2,5\n2.000;2,4\n", "row 1, column 'flops': '1.000' has a"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(BadInput, match=message) as refused:
        read_runs(path).require_numbers(["flops", "loss"])
    assert str(refused.value).startswith(str(path))
    assert "--on-bad-row" not in str(refused.value)
    assert "--encoding" not in str(refused.value)


def test_runs_that_trackers_call_unfinished_are_set_apart(tmp_path: Path) -> None:
    """W&B's table of runs and MLflow's: a crashed run may have a loss of its last step."""
    wandb = tmp_path / "wandb.csv"
    wandb.write_text(
        '"Name","State","config/width","loss"\n"a","finished","64","2.5"\n'
        '"b","crashed","64","9.5"\n"c","running","64",""\n'
    )
    runs = read_runs(wandb)
    assert runs.table["run"].to_list() == ["a"]
    assert runs.failed == (("b", "State is crashed"),)
    assert runs.unfinished == (("c", "State is running"),)
    mlflow = tmp_path / "mlflow.csv"
    mlflow.write_text(
        "run_id,status,params.width,metrics.loss,tags.mlflow.runName\n"
        "0a,FINISHED,64,2.5,small\n0b,FAILED,128,,large\n0c,FINISHED,256,2.25,\n"
    )
    runs = read_runs(mlflow)
    assert runs.table["run"].to_list() == ["small", "#2"]
    assert runs.table["params.width"].to_list() == [64, 256]
    assert runs.failed == (("large", "status is FAILED"),)
    # A column of states of something else removes no run.
    other = tmp_path / "other.csv"
    other.write_text("run,state,loss\nx,California,2.5\ny,failed,2.4\n")
    assert read_runs(other).table["run"].to_list() == ["x", "y"]


def test_a_chart_of_wandb_has_one_row_per_run_and_step(tmp_path: Path) -> None:
    ends = ("", "__MIN", "__MAX")
    lines = ["r - 1 - val/loss", "q - val/loss"]
    header = ["Step", *(f"{line}{end}" for line in lines for end in ends)]
    rows = [["1", "3", "3", "3", "", "", ""], ["2", "2.5", "2", "3", "2.7", "2.6", "2.8"]]
    for columns in (slice(None), slice(None, None, 3)):  # the second is without MIN and MAX
        kept = [[row[0], *row[1:][columns]] for row in [header, *rows]]
        text = "\n".join(",".join(f'"{cell}"' for cell in row) for row in kept)
        (tmp_path / "chart.csv").write_text(text)
        table = read_runs(tmp_path / "chart.csv").table.sort("run", "Step")
        assert table.select("run", "Step", "val/loss").rows() == [
            ("q", 2, 2.7),
            ("r - 1", 1, 3.0),
            ("r - 1", 2, 2.5),
        ]


def test_keys_of_nested_objects_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"config": {"model": {"width": 8}}, "loss": 1}\n{"config": {"lr": 0.1}}\n')
    table = read_runs(path).table
    assert table["config/model/width"].to_list() == [8, None]
    assert table["config/lr"].to_list() == [None, 0.1]
