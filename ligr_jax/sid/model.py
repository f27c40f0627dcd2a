"""A trained model of semantic ids: a frozen function from vectors to codes, stored in a directory.

model.npz     arrays by name
model.json    configuration, width and column of the vectors, digest; written last
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import read_plain_json
from ligr_jax.parallel.mesh import batch_sharding, replicated, to_mesh
from ligr_jax.sid.config import SidConfig, from_plain
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.files import load_arrays, save_arrays
from ligr_jax.sid.mesh import data_mesh
from ligr_jax.sid.quantize import quantize_residuals
from ligr_jax.sid.rqvae import RQVAE

ROWS = 1 << 13  # rows encoded at once


@dataclass(frozen=True)
class SidModel:
    """A trained model.

    Attributes:
        config: configuration.
        width: W, width of the content vectors.
        column: name of their column.
        arrays: `mean` [W] and `scale` [], which standardize vectors, and arrays of the method.
    """

    config: SidConfig
    width: int
    column: str
    arrays: Mapping[str, np.ndarray]

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of everything that determines an item's codes."""
        about = {"config": dataclasses.asdict(self.config), "width": self.width}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()[:12]

    def code(
        self, corpus: Corpus
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Encode all items with content, in order, a block at a time.

        Yields:
            Ids int64 [B], vectors float32 [B, W], codes int32 [B, N], and reconstructions of the
            vectors, float32 [B, W].

        Raises:
            BadInput: the vectors have another width than the model's.
        """
        if corpus.width != self.width:
            raise BadInput(
                f"column '{self.column}' has vectors of {corpus.width} numbers, but the model "
                f"was trained on {self.width}; give vectors of that width, or train another model"
            )
        mesh = data_mesh(ROWS)
        arrays = to_mesh(dict(self.arrays), replicated(mesh))
        run = jax.jit(_coder(self.config, self.width))
        for ids, x in corpus.batches(ROWS):
            full = np.zeros((ROWS, self.width), np.float32)  # one shape: the program compiles once
            full[: len(x)] = x
            codes, x_hat = jax.device_get(run(arrays, to_mesh(full, batch_sharding(mesh))))
            yield ids, x, codes[: len(x)], x_hat[: len(x)]

    def save(self, directory: Path) -> None:
        """Write the model; a directory with a model.json is complete."""
        save_arrays(directory / "model.npz", self.arrays)
        about = {
            "format": "ligr-semantic-ids",
            "digest": self.digest,
            "width": self.width,
            "column": self.column,
            "config": dataclasses.asdict(self.config),
        }
        write_atomically(directory / "model.json", json.dumps(about, indent=1) + "\n")


def load_model(directory: Path) -> SidModel:
    """Read a model that `SidModel.save` wrote.

    Raises:
        BadInput: there is no finished model, or it has changed since it was written.
    """
    path = directory / "model.json"
    if not path.is_file():
        raise BadInput(
            f"{directory} holds no finished model (model.json); "
            f"`ligr sid train SOURCE --out {directory}` trains one, or continues"
        )
    about = read_plain_json(path, "train again")
    if about.get("format") != "ligr-semantic-ids":
        raise BadInput(f"{path}: not a model of semantic ids; `ligr sid train` makes one")
    arrays = load_arrays(directory / "model.npz")
    model = SidModel(from_plain(about["config"]), about["width"], about["column"], arrays)
    if model.digest != about["digest"]:
        raise BadInput(
            f"{directory}/model.npz: digest {model.digest}, where model.json says "
            f"{about['digest']}; one of the two was replaced: train again"
        )
    return model


Coder = Callable[[Mapping[str, Any], jax.Array], tuple[jax.Array, jax.Array]]


def _coder(config: SidConfig, width: int) -> Coder:
    """Return the function from arrays and vectors [B, W] to codes [B, N] and reconstructions."""

    def rqvae(arrays: Mapping[str, Any], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        names = {tuple(k.split("/")): v for k, v in arrays.items() if k not in ("mean", "scale")}
        out: Any = RQVAE(config, width).apply({"params": unflatten_dict(names)}, x)
        return out.quantized.codes, out.x_hat

    def rqkmeans(arrays: Mapping[str, Any], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        quantized = quantize_residuals(x, arrays["codebooks"])
        return quantized.codes, quantized.chosen.sum(0)

    method = {"rqvae": rqvae, "rqkmeans": rqkmeans}[config.method]

    def code(arrays: Mapping[str, Any], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, scale = jnp.asarray(arrays["mean"]), jnp.asarray(arrays["scale"])
        codes, x_hat = method(arrays, (x - mean) / scale)
        return codes, x_hat * scale + mean

    return code
