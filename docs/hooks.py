"""MkDocs hooks: API pages follow the exports of the package; pages load nothing from other hosts.

A line `[exports]: ligr_jax.nn ligr hstu` in a page is replaced by the documentation of the public
names of `ligr_jax.nn`, grouped by module; the modules that the line names come first. All public
modules document a package that exports no names.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FLAX = {"ligr_jax.nn"}
MARK = re.compile(r"^\[exports\]: (\S+)((?: \S+)*)$", re.MULTILINE)
CELL = re.compile(r"<td>([^<]*)</td>")
FIGURE = re.compile(r'<img [^>]*?src="([^"]*images/[^"]+)"[^>]*>')
_VALUE = r"[+\-−]?[\d.,]*\d(?:e[+-]?\d+)?"
INTERVAL = re.compile(rf"\[{_VALUE}, {_VALUE}\]|{_VALUE} ± {_VALUE}")
NUMBER = re.compile(rf"{_VALUE}(?: \[.*\]| ± .*)?")
# Elements that a browser loads when it opens a page; `a` is not one of them.
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
# `<link>` elements with one of these roles are addresses that are not loaded.
NOT_LOADED = {"canonical", "alternate", "next", "prev"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace every `[exports]: PACKAGE` line by documentation directives."""
    return MARK.sub(lambda match: directives(match[1], match[2].split()), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Keep numbers of a table cell on one line, and link figures to their full size."""
    html = CELL.sub(lambda match: numeric_cell(match[1]), html)
    return FIGURE.sub(lambda match: f'<a href="{match[1]}">{match[0]}</a>', html)


def numeric_cell(text: str) -> str:
    """Return a cell of a table: an interval is not broken, and a number has the class "n"."""
    kept = INTERVAL.sub(lambda match: match[0].replace(" ", "\u00a0"), text)
    return f'<td class="n">{kept}</td>' if NUMBER.fullmatch(text) else f"<td>{kept}</td>"


def on_post_build(config: Any) -> None:
    """Raise an error if a page of the site loads something from another host."""
    site = Path(config["site_dir"])
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for address in external_loads(path.read_text(), path.suffix):
            raise ValueError(f"{path}: the page loads {address} from another host")


def directives(package: str, first: Sequence[str] = ()) -> str:
    """Return a mkdocstrings directive per module of `package`, with the exported names.

    Raises:
        ValueError: a module of `first` exports nothing.
    """
    exports = exported_names(package) or dict.fromkeys(modules(package))
    if unknown := set(first) - set(exports):
        raise ValueError(f"{package} exports nothing of {', '.join(sorted(unknown))}")
    parts = []
    for module in [*first, *(m for m in exports if m not in first)]:
        names = exports[module]
        parts.append(f"::: {package}.{module}")
        # The fields and the call of a Flax module are part of its signature, documented or not.
        parts.append(f"    options:\n      show_if_no_docstring: {str(package in FLAX).lower()}")
        if names is not None:
            parts.append(f"      members: [{', '.join(names)}]")
        parts.append("")
    return "\n".join(parts)


def exported_names(package: str) -> dict[str, list[str] | None]:
    """Return the names that the `__init__` of `package` imports from each of its modules."""
    init = ROOT / package.replace(".", "/") / "__init__.py"
    names: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(init.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            module = str(node.module).removeprefix(f"{package}.")
            names.setdefault(module, []).extend(alias.name for alias in node.names)
    return {module: sorted(names[module]) for module in sorted(names)}


def modules(package: str) -> list[str]:
    """Return the public modules of `package`, packages inside it included."""
    folder = ROOT / package.replace(".", "/")
    files = {path.stem for path in folder.glob("*.py")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    return sorted(name for name in files | packages if not name.startswith("_"))


def external_loads(text: str, suffix: str = ".html") -> Iterator[str]:
    """Return the addresses on other hosts that a browser loads for a page or a style sheet."""
    addresses = (
        loaded_addresses(text)
        if suffix == ".html"
        else re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", text)
    )
    return (a for a in addresses if re.match(r"(?:\w+:)?//", a))


def loaded_addresses(html: str) -> list[str]:
    """Return the addresses of everything that a browser loads for an HTML page."""
    addresses: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            roles = set((values.get("rel") or "").split())
            address = values.get(LOADED.get(tag, ""))
            if address and not (tag == "link" and roles & NOT_LOADED):
                addresses.append(address)

    Reader().feed(html)
    return addresses
