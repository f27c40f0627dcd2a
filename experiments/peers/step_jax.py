"""The library's side of the race of training steps: the trainer's compiled step and pipeline."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config
from ligr_jax.cost.flops import parameter_counts, train_flops
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.data.world.generate import WorldConfig, generate_world
from ligr_jax.nn.work import Work
from ligr_jax.scaling.ladder import configure
from ligr_jax.train.loop import Trainer
from peers.attention_jax import hello
from peers.workers import Calls, serve

SETTLE_SECONDS = 0.3  # the readers fill their buffer now, not in the other side's turn
SESSION = 8  # impressions, on average, in the synthetic world


class Side:
    """State of the worker between requests."""

    def start(
        self, out: str, impressions: int, batches: int, settings: list[str]
    ) -> dict[str, Any]:
        """Make the data and the trainer, and take the first step.

        Write the files that the other side reads: `params.npz` (randomized parameters by path) and
        `batch-0.npz`, ...

        Returns:
            The configuration, and the values on which both sides must agree.
        """
        folder = Path(out)
        self.config = configured(folder, impressions, settings)
        records = Records(self.config.data.dir)
        self.trainer = Trainer(self.config, records, folder / "run")
        fresh = self.trainer._start()
        self.step = self.trainer.step_fn
        pairs = [next(self.trainer.batches) for _ in range(batches)]
        for i, (batch, lists) in enumerate(pairs):
            ids = {name: as_rows(lists[name].local, index) for name, index in batch.ids.items()}
            np.savez(folder / f"batch-{i}.npz", **by_path(batch._replace(ids=ids)._asdict()))
        params = jax.tree.map(jax.device_put, randomized(fresh.params), shardings(fresh.params))
        np.savez(folder / "params.npz", **by_path(params))
        counts = parameter_counts(self.config.model, params)
        self.state = fresh._replace(params=params)
        self.work: list[Work] = []
        first = self._read(self._dispatch(pairs[0]))
        batch = pairs[0][0]
        full = Work(impressions=batch.member.size)  # padding is multiplied too
        return {
            "model": dataclasses.asdict(self.config.model),
            "ffn_width": self.config.model.ffn_width,
            "optim": dataclasses.asdict(self.config.optim),
            "loss": first["loss"],
            "grad_norm": first["grad_norm"],
            "parameters": counts,
            "product_flops": train_flops(self.config.model, full),
            "lookups": sum(ids.size for ids in batch.ids.values()),
            "packing": self.trainer.plan.packing,
        }

    def steps(self, count: int) -> float:
        """Return the seconds of one of `count` steps; metrics are read one step later."""
        began = time.perf_counter()
        pending = None
        for _ in range(count):
            metrics = self._dispatch(next(self.trainer.batches))
            if pending is not None:
                self._read(pending)
            pending = metrics
        self._read(pending)
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        time.sleep(SETTLE_SECONDS)
        return seconds / count

    def flops(self) -> float:
        """Return the FLOPs of a step, averaged over the steps taken, without padding."""
        return float(np.mean([train_flops(self.config.model, work) for work in self.work]))

    def close(self) -> None:
        self.trainer.batches.close()

    def _dispatch(self, inputs: MappedBatch) -> Any:
        self.state, metrics = self.step(self.state, self.trainer.program.shard_batch(inputs))
        return metrics

    def _read(self, metrics: Any) -> dict[str, float]:
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        names = [field.name for field in dataclasses.fields(Work)]
        self.work.append(Work(*(values[name] for name in names)))
        return values


def configured(folder: Path, impressions: int, settings: list[str]) -> Config:
    """Return the configuration for a world of about so many impressions; make the world."""
    row = int(dict(s.split("=") for s in settings)["data.seq_len"]) // 2
    # Members about as long as a row, so that rows hold one or few of them.
    world = WorldConfig(members=max(16, impressions // row), sessions=max(2.0, row / SESSION))
    generate_world(world, folder / "log")
    manifest = prepare(open_source(folder / "log"), folder / "prepared", PrepareOptions())
    return configure(manifest, folder / "prepared", settings)


def as_rows(local: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return rows of a table from indices [B, N] into the unique ids [n, u] of each device."""
    by_device = index.reshape(len(local), -1)
    return np.take_along_axis(local, by_device, 1).reshape(index.shape)


def randomized(params: Any) -> Any:
    """Add noise: initial heads are zero, so the loss would not depend on the layers below them."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: np.asarray(x) + np.float32(0.02) * rng.standard_normal(x.shape, np.float32),
        params,
    )


def shardings(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, tree)


def by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(p.key) for p in path): np.asarray(leaf) for path, leaf in leaves}


def main() -> None:
    side, calls = Side(), Calls(jax.block_until_ready, queued=False)
    square = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(jnp.dot)
    calls.add("matmul", lambda: product(square, square))
    serve(
        hello=hello,
        matmul=lambda: calls.sample("matmul"),
        start=side.start,
        steps=side.steps,
        flops=side.flops,
        close=side.close,
    )


if __name__ == "__main__":
    main()
