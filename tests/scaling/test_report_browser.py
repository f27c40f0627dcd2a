"""The page in a real browser: it loads without messages, draws, sorts, filters and explains."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.scaling.simulated import Numbers

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on this machine")

# What a user does, by mouse and by keyboard; what is then seen is left as JSON in the page.
DRIVER = """
<script>{
const seen = {}, column = name => [...document.querySelectorAll("#runs thead th")]
  .findIndex(cell => cell.textContent === name);
const button = name => document.querySelectorAll("#runs thead button")[column(name)];
const cells = name => [...document.querySelectorAll("#runs tbody tr")]
  .filter(row => !row.hidden).map(row => row.cells[column(name)].dataset.value);
const press = (target, key) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
button("NE").focus();
seen.focused = document.activeElement === button("NE");
button("NE").click();
seen.up = cells("NE").map(Number);
button("NE").click();
seen.down = cells("NE").map(Number);
button("architecture").click();
seen.words = cells("architecture");
const filter = document.getElementById("filter");
filter.value = "kind=hstu depth=4";
filter.dispatchEvent(new Event("input"));
seen.filtered = cells("run");
seen.count = document.getElementById("count").textContent;
const figures = [...document.querySelectorAll("figure svg")], tip = document.getElementById("tip");
seen.drawn = figures.map(figure => {
  const box = figure.getBoundingClientRect();
  return [box.width, box.height, figure.querySelectorAll("path").length];
});
figures[0].focus();
press(figures[0], "ArrowRight");
const first = tip.textContent, from = document.querySelector(".now").getBoundingClientRect().left;
press(figures[0], "ArrowLeft");
seen.tips = [first, tip.textContent];
seen.order = [from, document.querySelector(".now").getBoundingClientRect().left];
press(figures[0], "Escape");
seen.hidden = tip.hidden;
figures[1].querySelector(".dot").dispatchEvent(new PointerEvent("pointerenter"));
seen.pointed = tip.hidden ? "" : tip.textContent;
seen.wide = [document.documentElement.scrollWidth, window.innerWidth];
document.body.append(Object.assign(document.createElement("pre"),
  {id: "seen", textContent: JSON.stringify(seen)}));
}</script>
"""


def browse(page: Path, profile: Path, *options: str) -> tuple[str, str]:
    """Return the document after its scripts have run, and the messages of the browser."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=5000", *options]
    done = subprocess.run(
        [*command, "--dump-dom", page.resolve().as_uri()], capture_output=True, check=True
    )
    return done.stdout.decode(), done.stderr.decode(errors="replace")


@pytest.fixture(scope="module")
def driven(
    whole: tuple[Path, Numbers], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Numbers, str]:
    text = (whole[0] / "report.html").read_text()
    page = tmp_path_factory.mktemp("browser") / "report.html"
    page.write_text(text.replace("</body>", DRIVER + "</body>"))
    document, log = browse(page, page.parent / "profile", "--window-size=1300,900")
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, re.S)
    assert found, f"the page's script did not end; the browser said: {log[-2000:]}"
    return json.loads(html.unescape(found[1])), log


def test_it_loads_from_a_file_without_a_word_on_the_console(driven: tuple[Any, str]) -> None:
    assert "CONSOLE" not in driven[1]


def test_figures_are_drawn_and_the_page_does_not_scroll_sideways(driven: tuple[Any, str]) -> None:
    seen = driven[0]
    assert len(seen["drawn"]) > 12
    assert all(w > 250 and h > 100 and paths > 5 for w, h, paths in seen["drawn"])
    assert seen["wide"][0] <= seen["wide"][1]


def test_the_table_sorts_and_filters(driven: tuple[Any, str]) -> None:
    seen = driven[0]
    assert seen["focused"]
    assert seen["up"] == sorted(seen["up"])
    assert seen["down"] == seen["up"][::-1]
    assert seen["words"] == sorted(seen["words"])
    assert set(seen["filtered"]) == {f"hstu{i}-{s}" for i in (4, 5) for s in (0, 1)}
    assert seen["count"] == " 4 of 45 runs"


def test_points_tell_their_run_values_and_configuration(driven: tuple[Any, str]) -> None:
    seen = driven[0]
    for tip in (*seen["tips"], seen["pointed"]):
        assert re.match(r"(ligr|hstu)\d-\d \(architecture\)dense params\d+", tip)
        assert re.search(r"NE0\.\d+AUC ", tip)
        assert re.search(r"model\.depth\d", tip)
    assert seen["order"][0] < seen["order"][1]  # right: the first point; left of it: the last
    assert seen["tips"][0] != seen["tips"][1]
    assert seen["hidden"]


def test_it_fits_a_phone(whole: tuple[Path, Numbers], tmp_path: Path) -> None:
    frame = tmp_path / "phone.html"
    source = (whole[0] / "report.html").read_text()
    measure = (
        "<script>{const page = document.documentElement;"
        "parent.postMessage(innerWidth + ' ' + (page.scrollWidth <= page.clientWidth), '*')}"
        "</script></body>"
    )
    (tmp_path / "report.html").write_text(source.replace("</body>", measure))
    frame.write_text(
        "<!doctype html><title>t</title><pre id=seen></pre><script>addEventListener('message', "
        "e => document.getElementById('seen').textContent = e.data)</script>"
        "<iframe src=report.html style='width:390px;height:800px;border:0'></iframe>"
    )
    document, _ = browse(frame, tmp_path / "profile")
    assert '<pre id="seen">390 true</pre>' in document
