"""Numeric fixtures of published layers: inputs and parameters, and the outputs and gradients of the
authors' or another public implementation.

    fixture = load_fixture("dcnv2_cross")
    check(fn, fixture)                      fn(inputs, params) -> outputs

A fixture is one file of arrays: matrices are [in, out], per-token matrices [M, in, out]. Names are
flat, with slashes: "layer0/u/kernel". The files are not in the repository, so a test without them
is skipped.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

FIXTURES = Path(__file__).parents[2].parent / "shared" / "data" / "rivals"

Arrays = dict[str, Any]
Layer = Callable[[Arrays, Arrays], Arrays | jax.Array]


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """One published layer.

    Attributes:
        config: its sizes, epsilon, activation and remarks.
        inputs, params: leaves of the gradient, by name.
        outputs: the outputs of the public implementation, by name.
        gradients: of the sum of squares of all outputs, by "input/NAME" and "param/NAME".
        extra: masks, offsets of ragged rows, times: arrays without a gradient, by name.
    """

    config: dict[str, Any]
    inputs: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    extra: dict[str, np.ndarray]


def load_fixture(name: str) -> Fixture:
    """Return the fixture of a layer; without its file, skip the test."""
    path = FIXTURES / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no fixture of {name} in {FIXTURES}")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    config = json.loads(str(arrays.pop("meta")))["config"]

    def group(kind: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(kind): a for k, a in arrays.items() if k.startswith(kind)}

    return Fixture(
        config=config,
        inputs=group("input/"),
        params=group("param/"),
        outputs=group("output/"),
        gradients=group("grad/"),
        extra=group("extra/"),
    )


def check(
    fn: Layer,
    fixture: Fixture,
    *,
    ignored: Collection[str] = (),
    output_rtol: float = 1e-5,
    gradient_rtol: float = 1e-4,
) -> None:
    """Assert that a layer has the outputs and gradients of a fixture.

    Differences are relative to the largest entry of an array. Gradients of the sum of squares of
    all outputs are compared for every input and parameter; those that are zero up to rounding have
    to be below 1e-6 of the largest gradient.

    Args:
        fn: computes the outputs from the inputs and the parameters of the fixture, both by name;
            returns a dictionary of the fixture's outputs, or an array if there is only one. It is
            traced under jit.
        fixture: of `load_fixture`.
        ignored: leaves whose gradient is not compared, "input/NAME" or "param/NAME", e.g. biases
            which the fixture has and the layer does not.
        output_rtol, gradient_rtol: tolerances.
    """

    def loss(inputs: Arrays, params: Arrays) -> tuple[jax.Array, Arrays]:
        out = fn(inputs, params)
        outputs = out if isinstance(out, dict) else dict.fromkeys(fixture.outputs, out)
        assert outputs.keys() == fixture.outputs.keys()
        return sum((x**2).sum() for x in outputs.values()), outputs

    graded = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_input, by_param), outputs = jax.device_get(graded(fixture.inputs, fixture.params))
    for name, expected in fixture.outputs.items():
        atol = output_rtol * np.abs(expected).max()
        np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=atol, err_msg=name)

    gradients = {f"input/{name}": g for name, g in by_input.items()}
    gradients |= {f"param/{name}": g for name, g in by_param.items()}
    assert gradients.keys() == fixture.gradients.keys()
    largest = max(np.abs(g).max() for g in fixture.gradients.values())
    for name, expected in fixture.gradients.items():
        if name not in ignored:
            atol = max(gradient_rtol * np.abs(expected).max(), 1e-6 * largest)
            np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=atol, err_msg=name)
