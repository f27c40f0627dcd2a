"""Laws of the documentation: its code runs, its links resolve, it has every command and package."""

import importlib.util
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ligr_jax
from ligr_jax.cli import COMMANDS
from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *GUIDE, *sorted((ROOT / "docs" / "api").glob("*.md"))]
OTHERS = [ROOT / name / "README.md" for name in ("experiments", "launch")]
LINK = re.compile(r"(?<!!)!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.fixture
def compiled_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile an initialization as one program, and not each of its operations alone."""
    import jax
    from flax import linen as nn

    def jit(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda layer, *args, **options: jax.jit(partial(method, layer, **options))(*args)

    for name in ("init", "init_with_output"):
        monkeypatch.setattr(nn.Module, name, jit(getattr(nn.Module, name)))


def run(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.usefixtures("compiled_init", "quick_keys")
def test_the_code_of_the_readme_and_the_guide_runs(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prepared").symlink_to(prepared)
    export_table()
    results = {p.name: [run(code) for code in blocks(p)] for p in (README, *GUIDE) if blocks(p)}
    assert results.keys() == {"README.md", "library.md", "laws.md", "tables.md"}
    (readme,) = results["README.md"]
    first, layers, trained = results["library.md"]
    assert trained["model"].step == 20
    assert ((trained["click"] > 0) & (trained["click"] < 1)).tolist() == [True] * 3
    assert readme["logits"].shape == first["logits"].shape == (2, 6, 2)
    assert layers["shapes"]["HistoryEncoder"] == (2, 6, 144)
    low, high = results["laws.md"][0]["law"].intervals["alpha"]
    assert low < 0.12 < high
    assert results["tables.md"][0]["rows"].shape == (2, 4)


def export_table() -> None:
    """Write the export that the example of tables.md reads."""
    import jax.numpy as jnp

    from ligr_jax.tables.export import Source, export

    export([Source("item_id", jnp.ones((20_000, 4)), 20_000, 4)], Path("exports/first"), 8)


def test_the_readme_is_short_and_lists_the_packages_in_the_order_of_the_layers() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    listed = re.findall(r"^\| `ligr_jax/(\w+)` \|", text, re.MULTILINE)
    packages = {path.parent.name for path in Path(ligr_jax.__file__).parent.glob("*/__init__.py")}
    assert sorted(listed) == sorted(packages)
    levels = [next(k for k, layer in enumerate(LAYERS) if name in layer) for name in listed]
    assert levels == sorted(levels)


def test_links_between_the_pages_resolve() -> None:
    links = [(page, link) for page in [*PAGES, *OTHERS] for link in LINK.findall(page.read_text())]
    local = [(page, link) for page, link in links if not link.startswith(("http", "#"))]
    assert len(local) > 40
    missing = [(p.name, link) for p, link in local if not (p.parent / link.split("#")[0]).exists()]
    assert missing == []


def test_every_command_and_package_is_documented() -> None:
    guide = "\n".join(path.read_text() for path in (README, *GUIDE))
    assert [name for name in COMMANDS if f"ligr {name} " not in guide] == []
    packages = {p.parent.name for p in Path(ligr_jax.__file__).parent.glob("*/__init__.py")} - {
        "commands"
    }
    mark = re.compile(r"^\[exports\]: ligr_jax\.(\w+)(?: [\w ]+)?$", re.MULTILINE)
    marked = {name for page in PAGES for name in mark.findall(page.read_text())}
    assert packages == marked
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in PAGES[1:]]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_the_reference_follows_the_exports(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown("# Models\n\n[exports]: ligr_jax.nn models ligr\n")
    assert page.index("ligr_jax.nn.models") < page.index("nn.ligr") < page.index("nn.blocks")
    options = "    options:\n      show_if_no_docstring: true\n      members: [LiGR]\n"
    assert f"::: ligr_jax.nn.ligr\n{options}" in page
    assert "[exports]" not in page
    documented = {name for names in hooks.exported_names("ligr_jax.nn").values() for name in names}
    import ligr_jax.nn

    assert documented == set(ligr_jax.nn.__all__)


def test_numbers_of_tables_stay_together_and_figures_open_in_full(hooks: ModuleType) -> None:
    row = "<tr><td>a [b, c]</td><td>+0.1 [-0.2, 3.0]</td><td>1 ± 2</td><td>80,021</td></tr>"
    page = hooks.on_page_content(f'{row}<code>[1, 2]</code><img alt="x" src="../images/a.png">')
    assert page == (
        '<tr><td>a [b, c]</td><td class="n">+0.1 [-0.2,\u00a03.0]</td>'
        '<td class="n">1\u00a0±\u00a02</td><td class="n">80,021</td></tr><code>[1, 2]</code>'
        '<a href="../images/a.png"><img alt="x" src="../images/a.png"></a>'
    )


def test_a_page_that_loads_from_another_host_is_found(hooks: ModuleType) -> None:
    """The build of the site fails on such a page (`on_post_build`)."""
    page = """<link rel="canonical" href="https://a.org/"><link rel="stylesheet" href="a.css">
    <a href="https://a.org">a</a><img src="images/a.png"><script src="js/a.js"></script>"""
    assert list(hooks.external_loads(page)) == []
    for element, address in (
        ('<script src="//cdn.org/a.js"></script>', "//cdn.org/a.js"),
        ('<link rel="stylesheet" href="https://fonts.org/a.css">', "https://fonts.org/a.css"),
        ('<img src="http://a.org/a.png">', "http://a.org/a.png"),
    ):
        assert list(hooks.external_loads(page + element)) == [address]
    style = "@import 'https://a.org/a.css'; b { background: url(https://a.org/b.png) url(c.png) }"
    found = list(hooks.external_loads(style, ".css"))
    assert found == ["https://a.org/a.css", "https://a.org/b.png"]
