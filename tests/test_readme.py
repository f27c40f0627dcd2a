"""The README's code runs as it stands."""

import re
from pathlib import Path


def test_the_library_in_ten_lines() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["logits"].shape == (2, 6, 2)  # type: ignore[attr-defined]
