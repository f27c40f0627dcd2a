"""Laws of the package's layers: imports point down, and data and results need no JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ligr_jax

ROOT = Path(ligr_jax.__file__).parent
# Lower layers first; `atomic` and others are leaves that anyone may use.
LAYERS = (
    {"ligr_jax", "atomic", "console", "digests", "errors", "exit_status", "lock", "progress"}
    | {"stop"},
    {"config", "ops", "policy"},
    {"data"},
    {"tables"},
    {"nn"},
    {"parallel"},
    {"train"},
    {"sid"},
    {"serve"},
    {"scaling"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# What reads data or results runs where there is no accelerator, and starts fast.
WITHOUT_JAX = ("atomic", "config", "data", "digests", "errors", "ops.hashing", "ops.metrics")
WITHOUT_JAX += ("console", "exit_status", "lock", "policy", "progress", "stop")
WITHOUT_JAX += tuple(f"scaling.{m}" for m in ("fit", "runs", "report"))
POLICIES = ("propensity", "replay", "thompson")
ACCELERATOR = {"jax", "flax", "optax", "orbax"}


def modules() -> dict[str, Path]:
    """Dotted names of all modules, with their files."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(name: str, everywhere: bool) -> set[str]:
    """Modules that `name` imports: on import, or anywhere in it; not those for type checks only."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(MODULES[name].read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or {str(node.module)}
        pending += ast.iter_child_nodes(node)
    return found


def layer(name: str) -> int:
    parts = name.split(".")
    part = parts[1] if len(parts) > 1 else parts[0]
    (found,) = (k for k, parts in enumerate(LAYERS) if part in parts)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    ours = {m for m in imports(name, everywhere=True) if m.split(".")[0] == "ligr_jax"}
    upward = {m for m in ours if layer(m) > layer(name)}
    # A command is loaded where it is run; the libraries it starts lie below it.
    assert not upward, f"{name} imports {upward} from above"


def reached(name: str) -> set[str]:
    """Everything outside the package that importing `name` imports through our own modules."""
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


def test_importing_them_loads_no_jax() -> None:
    """All in one process, but for what stands on grain, which loads JAX itself."""
    names = [n for n in FREE if "grain" not in reached(n)]
    assert len(names) > 20
    code = f"import sys, {', '.join(names)}; assert not {ACCELERATOR} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["scaling.fit", *(f"policy.{m}" for m in POLICIES)])
def test_fits_and_policies_need_numpy_and_scipy_alone(name: str) -> None:
    """They are read where there are tables of runs, or a log, and nothing else of ours."""
    outside = reached(f"ligr_jax.{name}") - sys.stdlib_module_names
    assert outside <= {"numpy", "scipy"}


def test_grain_is_needed_by_the_pipeline_alone() -> None:
    assert [n for n in FREE if "grain" in reached(n)] == ["ligr_jax.data.pipeline"]
