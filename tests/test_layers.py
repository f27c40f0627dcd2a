"""Laws of the layers: imports point down; reading data and results needs no JAX."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import ligr_jax

ROOT = Path(ligr_jax.__file__).parent
# Modules at the root of the package that every other module may use.
LEAVES = {
    "atomic",
    "console",
    "contents",
    "digests",
    "errors",
    "exit_status",
    "host_limits",
    "lazy",
    "lock",
    "messages",
    "places",
    "progress",
    "stop",
    "store",
    "strict_json",
}
# Lower layers first.
LAYERS = (
    {"ligr_jax"} | LEAVES,
    {"config", "ops", "policy"},
    {"data"},
    {"tables"},
    {"nn"},
    {"cost"},
    {"parallel"},
    {"runs"},
    {"train"},
    {"sid"},
    {"serve"},
    {"scaling"},
    {"launch"},
    {"api"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# Modules that read data or results run without an accelerator and start fast.
WITHOUT_JAX = (
    *sorted(LEAVES),
    "config",
    "data",
    "ops.hashing",
    "ops.metrics",
    "policy",
    "runs.checkpoint_files",
    "runs.columns",
    "runs.directory",
    "runs.files",
    "runs.rows",
    "runs.run_table",
    "runs.state",
    "runs.sweep_state",
    "runs.table",
    "scaling.fit",
    "scaling.report",
    "serve.activity",
    "serve.activity_about",
    "serve.activity_append",
    "serve.activity_build",
    "serve.activity_columns",
    "serve.activity_compact",
    "serve.activity_file",
    "serve.activity_layout",
    "serve.activity_rows",
)
POLICIES = ("diversity", "offline_replay", "propensity", "rerank", "thompson")
ACCELERATOR = {"jax", "flax", "optax", "orbax"}


def modules() -> dict[str, Path]:
    """Return the file of every module of the package, by dotted name."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


@functools.cache
def imports(name: str, everywhere: bool) -> set[str]:
    """Return the modules that `name` imports; imports for type checkers only do not count.

    Args:
        name: dotted name of a module of the package.
        everywhere: also count imports inside functions, which run later.
    """
    imported: set[str] = set()
    pending: list[ast.AST] = [ast.parse(MODULES[name].read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= (below & MODULES.keys()) or {str(node.module)}
        pending += ast.iter_child_nodes(node)
    return imported


def layer(name: str) -> int:
    parts = name.split(".")
    part = parts[1] if len(parts) > 1 else parts[0]
    (level,) = (k for k, parts in enumerate(LAYERS) if part in parts)
    return level


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    ours = {m for m in imports(name, everywhere=True) if m.split(".")[0] == "ligr_jax"}
    upward = {m for m in ours if layer(m) > layer(name)}
    # Imports inside functions count as well: a command loads its libraries when it runs.
    assert not upward, f"{name} imports {upward} from above"


def test_no_modules_import_each_other_in_a_cycle() -> None:
    """Imports inside functions count as well: a cycle hides which module is below the other."""
    graph = {n: {m for m in imports(n, everywhere=True) if m in MODULES} - {n} for n in MODULES}
    while leaves := {name for name, below in graph.items() if not below & graph.keys()}:
        for name in leaves:
            del graph[name]
    # Modules that remain are in a cycle or import one.
    assert not graph


@functools.cache
def reached(name: str) -> set[str]:
    """Return the external packages that importing `name` imports, directly or through ours."""
    seen, pending, outside = set(), [name], set()
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        if module not in MODULES:
            outside.add(module.split(".")[0])
            continue
        pending += imports(module, everywhere=False)
        parent = module.rpartition(".")[0]
        pending += [parent] if parent else []
    return outside


def is_free_of_jax(name: str) -> bool:
    inner = name.removeprefix("ligr_jax").lstrip(".")
    return not inner or any(inner == m or inner.startswith(f"{m}.") for m in WITHOUT_JAX)


FREE = [name for name in MODULES if is_free_of_jax(name)]


@pytest.mark.parametrize("name", FREE)
def test_data_and_results_import_no_accelerator(name: str) -> None:
    assert not reached(name) & ACCELERATOR


def test_importing_data_and_results_loads_no_jax() -> None:
    """All are imported in one process, except those that use grain, which loads JAX itself."""
    names = [n for n in FREE if "grain" not in reached(n)]
    assert len(names) > 20
    code = f"import sys, {', '.join(names)}; assert not {ACCELERATOR} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["scaling.fit", *(f"policy.{m}" for m in POLICIES)])
def test_fits_and_policies_need_only_numpy_and_scipy(name: str) -> None:
    """They serve a table of runs, or a log, without the rest of the package."""
    outside = reached(f"ligr_jax.{name}") - sys.stdlib_module_names
    assert outside <= {"numpy", "scipy"}


def test_only_the_pipeline_and_its_loader_need_grain() -> None:
    users = ["ligr_jax.data.loader", "ligr_jax.data.pipeline"]
    assert [n for n in FREE if "grain" in reached(n)] == users
