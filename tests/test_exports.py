"""Laws of lazy exports: one table of public names per package, complete and unambiguous."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import ligr_jax

ROOT = Path(ligr_jax.__file__).parent


def package_name(path: Path) -> str:
    return ".".join(path.parent.relative_to(ROOT.parent).parts)


INITS = {
    package_name(path): ast.parse(path.read_text())
    for path in sorted(ROOT.rglob("__init__.py"))
    if "lazy_exports" in path.read_text()
}


def table(package: str) -> dict[str, str]:
    """Return the module of each name in the table of a package."""
    calls = (
        node
        for node in ast.walk(INITS[package])
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_exports"
    )
    modules = ast.literal_eval(next(calls).args[1])
    return {name: f"{package}.{module}" for name, module in modules.items()}


def type_checking_imports(package: str) -> dict[str, str]:
    """Return the module of each name that type checkers see in a package."""
    (block,) = (node for node in INITS[package].body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {str(alias.asname): str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("package", INITS)
def test_table_type_checking_imports_and_dir_agree(package: str) -> None:
    module = importlib.import_module(package)
    exports = table(package)
    assert exports == type_checking_imports(package)
    assert module.__all__ == sorted(exports)
    assert set(exports) <= set(dir(module))


@pytest.mark.parametrize("package", INITS)
def test_every_export_is_the_object_of_its_module(package: str) -> None:
    module = importlib.import_module(package)
    for name, source in table(package).items():
        assert getattr(module, name) is getattr(importlib.import_module(source), name)
    with pytest.raises(AttributeError, match=f"{package}.* has no attribute 'no_such_name'"):
        _ = module.no_such_name


@pytest.mark.parametrize("package", INITS)
def test_no_export_has_the_name_of_a_submodule(package: str) -> None:
    """Importing the submodule would replace the export in the package."""
    submodules = {m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)}
    assert not submodules & table(package).keys()


def test_a_name_exported_twice_is_one_object() -> None:
    sources: dict[str, str] = {}
    for package in INITS:
        for name, source in table(package).items():
            assert sources.setdefault(name, source) == source, f"{name} has two meanings"


# Public names of modules that may have several meanings, each with the reason.
SHARED = {
    "add_arguments": "the interface of a command",
    "run": "the interface of a command",
    "main": "the entry point of a process",
}


def test_a_public_name_has_one_meaning_in_the_package() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    several = {name: files for name, files in places.items() if len(files) > 1}
    assert {name: several[name] for name in several.keys() - SHARED.keys()} == {}


def test_importing_the_packages_imports_neither_jax_nor_submodules() -> None:
    code = f"""
import sys
import {", ".join(INITS)}
loaded = {{name for name in sys.modules if name.startswith("ligr_jax.")}}
assert loaded <= {{"ligr_jax.lazy", *{list(INITS)}}}, loaded
assert not {{"jax", "flax", "numpy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
