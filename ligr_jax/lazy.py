"""Lazy exports (PEP 562): a package names its public API and imports a submodule on first use.

The `__init__` of a package holds a table from public names to submodules. Type checkers do not run
it, so they get the same names as imports:

    if TYPE_CHECKING:
        from ligr_jax.nn.ligr import LiGR as LiGR
    else:
        __all__, __getattr__, __dir__ = lazy_exports(__name__, {"LiGR": "ligr"})

`import ligr_jax.nn` then imports no submodule and no JAX; `from ligr_jax.nn import LiGR` imports
`ligr_jax.nn.ligr`. A public name must differ from the name of every submodule of its package:
importing a submodule binds its name in the package.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: the package's `__name__`.
        modules: for each public name, the submodule that defines it, relative to the package.

    Returns:
        The sorted public names; a function that imports a public name and keeps it in the package;
        a function that lists the public names together with what the package has loaded.
    """
    names = sorted(modules)

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next access finds it without this call
        return value

    def list_attributes() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return names, get_attribute, list_attributes
