"""RQ-VAE training: gradient steps on batches whose order is determined by a seed."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from ligr_jax.parallel.mesh import batch_sharding, replicated, to_mesh
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.kmeans import INIT_ROWS, residual_kmeans
from ligr_jax.sid.mesh import data_mesh
from ligr_jax.sid.reset import clear_moments, reset, usage
from ligr_jax.sid.rqvae import RQVAE, loss_parts


class State(NamedTuple):
    """Parameters, optimizer state, and the moving average of code usage times K, [N, K]."""

    params: Any
    opt_state: Any
    usage: jax.Array


class RQVAETraining:
    """Training of an RQ-VAE. See `ligr_jax.sid.train.SidTraining`."""

    log_every = 50

    def __init__(self, config: SidConfig, corpus: Corpus, mean: np.ndarray, scale: float) -> None:
        self.config, self.corpus, self.mean, self.scale = config, corpus, mean, scale
        self.model = RQVAE(config, corpus.width)
        self.mesh = data_mesh(config.batch)
        self.key = jax.random.key(config.seed)
        warmup = min(100, config.steps // 10)
        rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, warmup, config.steps)
        self.optimizer = optax.adam(rate)
        everywhere = replicated(self.mesh)
        self._step = jax.jit(
            self._updated,
            in_shardings=(everywhere, batch_sharding(self.mesh), everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
        )

    def fresh(self) -> State:
        """Initialize the networks at random, and the codebooks by residual k-means of latents."""
        init, cluster = jax.random.split(self.key)
        params = self.model.init(init, jnp.zeros((1, self.corpus.width)))["params"]
        rows = min(len(self.corpus), INIT_ROWS * self.config.codes)
        numbers = range(1, 1 + -(-rows // self.config.batch))
        x = np.concatenate([self.batch(number) for number in numbers])[:rows]
        z = self.model.apply({"params": params}, x, method="encode")
        found = jax.jit(residual_kmeans, static_argnums=(1, 2))
        params["codebooks"] = found(z, self.config.levels, self.config.codes, cluster)
        share = jnp.ones((self.config.levels, self.config.codes))
        return self.put(State(params, self.optimizer.init(params), share))

    def put(self, state: State) -> State:
        result: State = to_mesh(state, replicated(self.mesh))
        return result

    def batch(self, number: int) -> np.ndarray:
        """Return standardized vectors [B, W] of step `number`; each epoch is a new permutation."""
        size, items = self.config.batch, len(self.corpus)
        places = np.arange((number - 1) * size, number * size)
        epochs = places // items
        chosen = [
            _order(self.config.seed, int(e), items)[places[epochs == e] % items]
            for e in np.unique(epochs)
        ]
        x = self.corpus.take(np.concatenate(chosen))
        result: np.ndarray = ((x - self.mean) / self.scale).astype(np.float32)
        return result

    def update(self, number: int, state: State) -> tuple[State, Mapping[str, Any]]:
        x = to_mesh(self.batch(number), batch_sharding(self.mesh))
        result: tuple[State, Mapping[str, Any]] = self._step(
            state, x, jax.random.fold_in(self.key, number)
        )
        return result

    def _updated(
        self, state: State, x: jax.Array, key: jax.Array
    ) -> tuple[State, Mapping[str, jax.Array]]:
        config = self.config

        def objective(params: Any) -> tuple[jax.Array, Any]:
            out: Any = self.model.apply({"params": params}, x)
            parts = loss_parts(config, params["codebooks"], x, out)
            return jnp.stack(list(parts.values())).sum(), (parts, out.quantized)

        gradient, (parts, quantized) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        share = usage(quantized.codes, config.codes)
        average = config.decay * state.usage + (1 - config.decay) * share
        dead = average < config.dead
        params["codebooks"] = reset(params["codebooks"], dead, quantized, key)
        new = State(params, clear_moments(opt_state, dead), jnp.where(dead, 1.0, average))
        return new, {
            "error": parts["reconstruction"] / x.shape[1],
            "quantization": parts["quantization"],
            "flops": parts["flops"],
            "reset": dead.sum(),
        }

    def arrays(self, state: State) -> dict[str, np.ndarray]:
        result: dict[str, np.ndarray] = jax.device_get(flatten_dict(state.params, sep="/"))
        return result


@lru_cache(maxsize=2)  # a batch may hold the end of an epoch and the start of the next
def _order(seed: int, epoch: int, items: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(items)
