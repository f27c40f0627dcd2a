"""The README's code runs as it stands, and every command is in it."""

import re
from pathlib import Path

from ligr_jax.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_code_runs() -> None:
    fits, library, layers = (
        run(code) for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    )
    low, high = fits["law"].intervals["alpha"]  # type: ignore[attr-defined]
    assert low < 0.12 < high
    assert library["logits"].shape == (2, 6, 2)  # type: ignore[attr-defined]
    assert layers["shapes"]["HistoryEncoder"] == (2, 6, 144)  # type: ignore[index]


def run(code: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(code, names)
    return names


def test_every_command_is_there() -> None:
    assert [name for name in COMMANDS if f"ligr {name} " not in README] == []
