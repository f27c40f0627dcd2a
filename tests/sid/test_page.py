"""The page of clusters, and content vectors of titles."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from ligr_jax.cli import main
from ligr_jax.data.schema import BadInput
from ligr_jax.sid.page import read_item_texts
from ligr_jax.sid.text import title_vectors, write_title_vectors

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "ml_latest_small" / "movies.csv"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
IDS = [10, 20, 30, 9007199254740993]  # the last is no number of JavaScript's
TITLES = ["Heat", "Heat 2", "</script><b>Amélie", None]
TAGS = ["Crime|Drama", "Crime|Drama", "Romance", "Drama"]
# What a user does; what is then seen is left as JSON in the page.
DRIVER = """
<script>{
const seen = {}, search = document.getElementById("search");
const cells = () => [...document.querySelectorAll("#clusters tbody tr")]
  .map(row => [...row.cells].map(cell => cell.textContent));
const find = words => { search.value = words; search.dispatchEvent(new Event("input")); };
seen.clusters = document.querySelectorAll("#clusters details").length;
seen.drawn = document.querySelectorAll("figure svg path").length;
const later = () => new Promise(done => setTimeout(done, 50));
(async () => {
  find("heat 2"); await later();
  seen.found = cells();
  find(seen.found[0][0].split(".").slice(0, 2).join(".")); await later();
  seen.prefix = cells();
  find("ROMANCE"); await later();
  seen.romance = cells();
  seen.wide = [document.documentElement.scrollWidth, window.innerWidth];
  document.body.append(Object.assign(document.createElement("pre"),
    {id: "seen", textContent: JSON.stringify(seen)}));
})();
}</script>"""


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("movies") / "movies.csv"
    pl.DataFrame({"movie": IDS, "title": TITLES, "genres": TAGS}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def page(movies: Path) -> str:
    """The page, made from a table of titles with the command line."""
    here = movies.parent
    items, model, out = here / "items.parquet", here / "model", here / "page.html"
    columns = ["--id", "movie", "--tags", "genres", "--width", "8"]
    small = ["--levels", "2", "--codes", "3", "--method", "rqkmeans", "--steps", "3"]
    for words in (
        ["vectors", movies, *columns, "--out", items],
        ["train", items, "--out", model, *small],
        ["inspect", model, items, "--out", out, "--titles", movies, "--id", "movie"],
    ):
        assert main(["sid", *map(str, words)]) == 0
    return out.read_text()


def test_page_loads_nothing_from_outside(page: str) -> None:
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)|@import|url\(""", page)
    assert "<b>Amélie" not in page
    (data,) = re.findall(r'id="data">(.*?)</script>', page, flags=re.DOTALL)
    items = json.loads(data)["items"]
    assert sorted(item[0] for item in items) == sorted(map(str, IDS))
    assert {tuple(item[3:]) for item in items} == set(zip([*TITLES[:3], ""], TAGS))


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on this machine")
def test_items_are_found_by_their_words_and_codes(page: str, tmp_path: Path) -> None:
    driven = tmp_path / "page.html"
    driven.write_text(page.replace("</body>", DRIVER + "</body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=360,800"]
    command += ["--virtual-time-budget=5000", "--dump-dom", f"file://{driven}"]
    dom = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found is not None
    seen = json.loads(found[1])
    assert seen["clusters"] >= 2
    assert seen["drawn"] == 4
    ((codes, *cells),) = seen["found"]
    assert cells == ["20", "Heat 2", "Crime|Drama"]
    assert [codes, *cells] in seen["prefix"]
    assert {row[0] for row in seen["prefix"]} == {codes}
    assert [row[1] for row in seen["romance"]] == ["30"]
    assert seen["wide"][0] <= max(seen["wide"][1], 500)


def test_titles_are_joined_by_id_and_missing_ones_are_empty(movies: Path) -> None:
    columns = read_item_texts(movies, "movie", np.array([20, 99, 10]))
    assert columns["title"].to_list() == ["Heat 2", "", "Heat"]
    with pytest.raises(BadInput, match=r"no column 'item_id'.*--id"):
        read_item_texts(movies, "item_id", np.array([20]))


@pytest.mark.usefixtures("page")
def test_titles_are_checked_before_the_corpus_is_coded(
    movies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("ligr_jax.sid.model.SidModel.code")
    model, items = movies.parent / "model", movies.parent / "items.parquet"
    words = ["sid", "inspect", model, items, "--titles", movies.parent / "none.csv"]
    assert main([*map(str, words)]) == 1
    assert "none.csv: no such file" in capsys.readouterr().err


def test_vectors_are_near_where_titles_and_tags_are() -> None:
    titles = pl.Series(["Toy Story", "toy story 2", "Alien", "Aliens", "Heat", None])
    tags = pl.Series([["Kids"], ["Kids"], ["Horror"], ["Horror"], ["Crime"], []])
    x = title_vectors(titles, tags, 256)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-5)
    near = x @ x.T
    assert near[0, 1] > 0.7
    assert 0.5 < near[2, 3] < near[0, 1]  # "alien" and "aliens" share trigrams, not words
    assert np.abs(near[4, :4]).max() < 0.2
    np.testing.assert_array_equal(title_vectors(titles, tags, 256), x)


def test_empty_tags_are_none_and_tags_are_text(tmp_path: Path) -> None:
    table, out = tmp_path / "items.parquet", tmp_path / "out.parquet"
    columns = {"item_id": [1, 2, 3], "title": [None, "Heat", "Heat"], "year": [1, 2, 3]}
    frame = pl.DataFrame({**columns, "tags": ["", "Crime", "|Crime|"]})
    frame.write_parquet(table)
    write_title_vectors(table, out, "item_id", "title", "tags", 8)
    none, one, same = pl.read_parquet(out)["content"].to_list()
    assert none == [0] * 8
    assert one == same != none
    with pytest.raises(BadInput, match=r"items.parquet, column 'year': Int64 values are no tags"):
        write_title_vectors(table, out, "item_id", "title", "year", 8)


def test_inputs_of_vectors_and_ids_are_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "movies.csv"
    table.write_text("item_id,title\n1,Heat\n")
    again = tmp_path / "other" / ".." / "movies.csv"
    for words in (["vectors", table], ["assign", tmp_path / "model", table]):
        assert main(["sid", *map(str, words), "--out", str(again)]) == 1
        assert "would replace its source" in capsys.readouterr().err
        assert table.read_text() == "item_id,title\n1,Heat\n"


@pytest.mark.skipif(not REAL.is_file(), reason=f"no MovieLens in {REAL.parent}")
def test_movies_of_distinct_titles_get_distinct_vectors(tmp_path: Path) -> None:
    out = tmp_path / "items.parquet"
    words = ["sid", "vectors", str(REAL), "--id", "movieId", "--tags", "genres", "--out", str(out)]
    assert main(words) == 0
    table = pq.read_table(out)
    x = table["content"].combine_chunks().flatten().to_numpy().reshape(len(table), 64)
    films = pl.read_csv(REAL)
    assert len(np.unique(x, axis=0)) == films.n_unique(["title", "genres"]) > 9_700
