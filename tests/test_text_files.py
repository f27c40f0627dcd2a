"""Text is UTF-8 whatever the locale: in files, and on a terminal that has no Greek."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ligr_jax

ROOT = Path(ligr_jax.__file__).parent
TEXT = {"read_text", "write_text"}


def calls_without_encoding(path: Path) -> Iterator[int]:
    """Lines that open a text file in the locale's encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        words = [a.value for a in node.args if isinstance(a, ast.Constant)]
        words += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
        named = any(k.arg == "encoding" for k in node.keywords) or "utf-8" in words
        method = isinstance(function, ast.Attribute)
        if name in TEXT and method and not named:
            yield node.lineno
        modes = [w for w in words if isinstance(w, str) and w.strip("+") in {"r", "w", "a", "x"}]
        mode_less = not method and name == "open" and not any("b" in str(w) for w in words)
        if name in {"open", "fdopen"} and not named and (modes or mode_less):
            yield node.lineno


def test_text_files_name_their_encoding() -> None:
    lines = {str(p.relative_to(ROOT)): [*calls_without_encoding(p)] for p in ROOT.rglob("*.py")}
    assert not {name: found for name, found in lines.items() if found}


def test_a_terminal_without_greek_stops_no_command() -> None:
    code = (
        "import ligr_jax.cli as c, sys; from ligr_jax.commands import report;"
        "report.run = lambda args: print('\\u00b1 \\u03b2 \\udce9') or 0;"
        "sys.argv = ['ligr', 'report', 'x'];"
        "sys.exit(c.main())"
    )
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == rb"\xb1 \u03b2 \udce9" + b"\n"
