"""`--explode`: rows with lists of shown items become rows of items."""

from pathlib import Path

import polars as pl
import pytest

from ligr_jax.data.bags import Bags
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.label_rules import parse_label
from ligr_jax.data.sources.list_columns import parse_explode
from ligr_jax.data.sources.parse import parse_bags
from ligr_jax.data.sources.source import LogBatch, LogSource
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.text_lists import parse_lists

START_MS = 1_650_000_000_000
PAGES = pl.DataFrame(
    {
        "member_id": ["u", "v", "w", "u"],
        "timestamp_ms": [START_MS, START_MS + 5, START_MS + 9, START_MS + 9],
        "item_id": [[3, 4, 5], [4], [], [5, 3]],
        "labels": [[0, 1, 0], [1], [], [0, 0]],
        "clicked": [["4"], ["4"], None, []],
        "history": [[1] * 50] * 4,
    }
)


def opened(path: Path, explode: list[str], **more: object) -> LogSource:
    options = tuple(parse_explode(text) for text in explode)
    return open_source(path, "table", TableColumns(explode=options, **more))  # type: ignore[arg-type]


def rows_of(source: LogSource, batch_rows: int = 100) -> tuple[list[LogBatch], pl.DataFrame]:
    batches = list(source.batches(batch_rows, "error"))
    return batches, pl.concat(b.frame for b in batches)


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_labels_are_a_list_beside_the_items_or_a_list_of_items(
    tmp_path: Path, batch_rows: int
) -> None:
    PAGES.write_parquet(tmp_path / "pages.parquet")
    path, rule = tmp_path / "pages.parquet", parse_label("click=clicked contains item_id")
    by_rule = opened(path, ["item_id"], labels=(rule,))
    parallel = opened(path, ["item_id", "labels"], names={"click": "labels"}, actions=("click",))
    for source in (by_rule, parallel):
        batches, frame = rows_of(source, batch_rows)
        assert frame["item_id"].to_list() == [3, 4, 5, 4, 5, 3]
        assert frame["click"].to_list() == [0, 1, 0, 1, 0, 0]
        assert frame["member_id"].to_list() == ["u", "u", "u", "v", "u", "u"]
        assert frame["timestamp_ms"][:3].n_unique() == 1
        assert [b.row_number(k) for b in batches for k in range(len(b.frame))] == [
            1, 1, 1, 2, 4, 4]  # fmt: skip
        assert source.rows == 6
    assert "history" in by_rule.unused


@pytest.mark.parametrize(
    ("text", "separator"), [("{}", " "), ("['{}']", "|"), ('["{}"]', "|"), ("[{}]", "|")]
)
def test_lists_as_text_are_lists(tmp_path: Path, text: str, separator: str) -> None:
    between = {"{}": " ", "['{}']": "', '", '["{}"]': '","', "[{}]": " "}[text]
    written = {
        name: pl.Series(
            [text.format(between.join(map(str, v or []))) for v in PAGES[name].to_list()]
        )
        for name in ("item_id", "clicked")
    }
    PAGES.drop("labels", "history").with_columns(**written).write_csv(tmp_path / "pages.csv")
    rule = parse_label("click=clicked contains item_id")
    source = opened(tmp_path / "pages.csv", ["item_id"], labels=(rule,), separator=separator)
    _, frame = rows_of(source)
    assert frame["item_id"].drop_nulls().to_list() == ["3", "4", "5", "4", "5", "3"]
    assert frame.filter(pl.col("click") == 1)["item_id"].to_list() == ["4", "4"]


def test_a_repeated_page_is_a_duplicate_and_a_repeated_item_is_not(tmp_path: Path) -> None:
    page = {"member_id": "u", "timestamp_ms": START_MS, "page": 1, "shown": [7, 7], "click": 0}
    pages = pl.DataFrame([page, page, {**page, "page": 2}])
    pages.write_parquet(tmp_path / "pages.parquet")
    source = opened(tmp_path / "pages.parquet", ["shown"], names={"item_id": "shown"},
                    actions=("click",))  # fmt: skip
    options = PrepareOptions(fractions=(1, 0, 0))
    counts = prepare(source, tmp_path / "out", options).counts
    assert (counts["rows"], counts["duplicates"], counts["impressions"]) == (6, 2, 4)


def test_fields_that_the_objects_of_a_file_lack_are_null(tmp_path: Path) -> None:
    row = '{"member_id": 1, "click": 0, "timestamp_ms": %d, "shown": [{"id": %d%s}]}\n'
    (tmp_path / "0.jsonl").write_text(row % (START_MS, 5, ', "kind": "ad"'))
    (tmp_path / "1.jsonl").write_text(row % (START_MS, 6, ""))
    source = opened(tmp_path, ["shown"], names={"item_id": "shown.id"}, actions=("click",),
                    categorical=("shown.kind",))  # fmt: skip
    frames = [b.frame.select("item_id", "shown.kind") for b in source.batches(9, "error")]
    assert [f.rows() for f in frames] == [[(5, "ad")], [(6, None)]]


def test_elements_that_are_composed_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "pages.csv"
    path.write_text(f"member_id,shown\nu,a-b-1@{START_MS} c-0@{START_MS + 1}\nu,d-1\n")
    source = opened(path, ["shown={item_id}-{click}@{timestamp_ms}"], actions=("click",),
                    separator=" ")  # fmt: skip
    (batch,), frame = rows_of(source)
    assert frame["item_id"].to_list() == ["a-b", "c", None]
    assert frame["click"].to_list() == ["1", "0", None]
    assert frame["timestamp_ms"].to_list() == [START_MS, START_MS + 1, 0]
    fault = batch.faults[0]
    assert (fault.column, fault.rows.tolist()) == ("shown", [False, False, True])
    assert fault.rule.startswith("does not match {item_id}-{click}@{timestamp_ms}; correct")
    assert batch.row_number(2) == 2


@pytest.mark.parametrize(
    ("explode", "message"),
    [
        ("shwon", r"--explode shwon: no such column \(did you mean 'shown'\?\)"),
        ("shown", "values such as '3 4 5' have one element with the separator '|'; set --sep"),
        ("page", r"column 'page': --explode needs lists, and its values are Int64"),
    ],
)
def test_what_cannot_be_exploded_is_refused(tmp_path: Path, explode: str, message: str) -> None:
    pages = pl.DataFrame({"member_id": ["u"], "timestamp_ms": [START_MS], "shown": ["3 4 5"]})
    pages.with_columns(page=pl.lit(1, pl.Int64), click=pl.lit(1)).write_parquet(
        tmp_path / "p.parquet"
    )
    with pytest.raises(BadInput, match=message):
        opened(
            tmp_path / "p.parquet",
            [explode],
            names={"item_id": explode.replace("shwon", "shown")},
            actions=("click",),
        )
    with pytest.raises(BadInput, match="has a column 'click', as has the template of --explode"):
        opened(tmp_path / "p.parquet", ["shown={item_id}-{click}"], actions=("click",))
    for text in ("shown=item", "=x", "shown={a}-{a}"):
        with pytest.raises(BadInput, match="write COLUMN or COLUMN=TEMPLATE"):
            parse_explode(text)


def test_lists_in_brackets() -> None:
    texts = pl.Series(["['a b', \"it's\"]", "[1, 2]", "[1 2\n 3]", "(x, y)", "a|b", "[]", "", None])
    parsed = parse_lists(texts, "|").to_list()
    assert parsed == [["a b", "it's"], ["1", "2"], ["1", "2", "3"], ["x", "y"], ["a", "b"], [],
                      [None], None]  # fmt: skip
    bags, rules = parse_bags(pl.Series(["[1, 2]", "3|4", None]))
    assert bags.values.tolist() == Bags.from_lengths(bags.offsets[1:], bags.values).values.tolist()
    assert (bags.offsets.tolist(), bags.values.tolist(), rules) == ([0, 2, 4, 4], [1, 2, 3, 4], [])
