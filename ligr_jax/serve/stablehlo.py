"""Functions as StableHLO (`jax.export`), for several platforms in one file, and calls of them.

Only operations that every later JAX of the promise can run may be in a function. Of custom calls,
these are those of `jax.export` for symbolic shapes. Pallas kernels lowered by Triton are not
(`__gpu$xla.gpu.triton`), so attention is exported as plain XLA.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export

from ligr_jax.atomic import atomic_path
from ligr_jax.serve.manifest import ArtifactError, DamagedArtifact

PLATFORMS = ("cpu", "cuda", "tpu")
# Of `jax.export`: assertions on shapes, and running maxima over a symbolic dimension.
_STABLE_CALLS = {"shape_assertion", "stablehlo.dynamic_reduce_window"}
_CUSTOM_CALL = re.compile(r'custom_call @"?([\w$.]+)')
Function = Callable[..., Any]


def export_function(
    name: str, function: Function, args: tuple[Any, ...], platforms: tuple[str, ...] = PLATFORMS
) -> export.Exported:
    """Lower a function for several platforms.

    Args:
        name: name of the function, for messages.
        function: a pure function of pytrees.
        args: abstract arguments; a dimension may be symbolic (`jax.export.symbolic_shape`).
        platforms: names of platforms as `jax.export` has them.

    Raises:
        ArtifactError: the function has an operation that the promise of compatibility does not
            cover.
    """
    try:
        exported = export.export(jax.jit(function), platforms=platforms)(*args)
    except ValueError as e:
        if "custom call" not in str(e).lower():
            raise
        raise ArtifactError(
            f"function {name} cannot be exported: {e}; export it with attention as plain XLA"
        ) from e
    if exported.disabled_safety_checks:
        raise ArtifactError(
            f"function {name} is exported without {exported.disabled_safety_checks}; export it "
            "with all checks of jax.export"
        )
    unstable = set(_CUSTOM_CALL.findall(exported.mlir_module())) - _STABLE_CALLS
    if unstable:
        raise ArtifactError(
            f"function {name} calls {', '.join(sorted(unstable))}, which jax.export does not "
            "promise to keep; export it with attention as plain XLA"
        )
    return exported


def write_function(path: Path, exported: export.Exported) -> None:
    """Write a function; its gradients are not exported."""
    with atomic_path(path) as part:
        part.write_bytes(exported.serialize(vjp_order=0))


def read_function(path: Path) -> Function:
    """Read a function that `write_function` wrote, and return it jitted.

    Args:
        path: path of the file, which is intact.

    Raises:
        DamagedArtifact: this version of JAX cannot read the file.
        ArtifactError: the function is not lowered for the platform of this process.
    """
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
    except Exception as e:  # of the parser of flat buffers, without a common base
        raise DamagedArtifact(
            f"{path} cannot be read by JAX {jax.__version__} ({e}); export the run again"
        ) from e
    platform = export.default_export_platform()
    if platform not in exported.platforms:
        raise ArtifactError(
            f"{path} is lowered for {', '.join(exported.platforms)}, not for {platform}; set "
            "JAX_PLATFORMS, or export the run again"
        )
    return jax.jit(exported.call)
