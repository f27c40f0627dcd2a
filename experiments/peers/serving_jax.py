"""The library's side of the race of requests: the scorer, with histories encoded before or not."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, DataConfig, Feature, ModelConfig, ScoringConfig
from ligr_jax.cost.latency import request_flops
from ligr_jax.data.batch import Batch
from ligr_jax.data.padding import padding_batch
from ligr_jax.nn.models import make_model
from ligr_jax.serve.scorer import Scorer, rows_of
from ligr_jax.train.optimizer import split_tables
from peers.attention_jax import hello
from peers.step_jax import by_path, randomized
from peers.workers import Calls, serve

SESSION = 8  # impressions of a session
ROWS = 100_000  # of each table
FEATURES = ("actor_id", "item_id", "item_type", "surface")
TOP = 10  # K of split scoring


class Side:
    """State of the worker between requests."""

    def __init__(self) -> None:
        self.calls = Calls(lambda _: None, queued=False)  # results are NumPy arrays
        self.compiled: set[str] = set()

    def start(
        self, out: str, impressions: int, candidates: int, width: int, depth: int, heads: int
    ) -> dict[str, Any]:
        """Make a model with random parameters, a history, and the candidates of a request.

        Write `params.npz` and `request.npz` for the other side.

        Returns:
            The configuration, and the logits on which both sides must agree.
        """
        model = model_config(width, depth, heads)
        config = Config(model=model, data=DataConfig(seq_len=2 * impressions))
        params = jax.jit(make_model(model).init)(jax.random.key(0), padding_batch(model, 1, 2))
        params = randomized(params["params"])
        dense, tables = split_tables(params)
        readers = {name: rows_of(np.asarray(table)) for name, table in tables.items()}
        self.scorer, self.pointwise = (
            Scorer(config, dense, {}, readers, ScoringConfig(set_top=top)) for top in (TOP, 0)
        )
        self.history = request(model, impressions, first_session=0)
        session = int(self.history.session[0, -1]) + 1
        self.candidates = request(model, candidates, session)
        self.candidates = self.candidates._replace(
            session=np.full_like(self.candidates.session, session),
            labels=np.zeros_like(self.candidates.labels),
        )
        self.cache = self.scorer.encode(self.history)
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "params.npz", **by_path(params))
        joined = jax.tree.map(lambda x, y: np.concatenate([x, y], 1), self.history, self.candidates)
        np.savez(folder / "request.npz", **by_path(joined._asdict()))
        return {
            "model": dataclasses.asdict(model),
            "ffn_width": model.ffn_width,
            "logits": self.scorer.score_session(self.cache, self.candidates)[0].tolist(),
            "flops": {
                kind: request_flops(model, 2 * impressions, candidates, encoded=kind == "warm")
                for kind in ("warm", "cold")
            },
            "cache_mb": sum(x.nbytes for x in jax.tree.leaves(self.cache)) / 2**20,
        }

    def sample(self, kind: str) -> float:
        """Return the seconds of a request; the first call compiles."""
        if kind not in self.compiled:
            self.calls.add(kind, getattr(self, kind))
            self.compiled.add(kind)
        return self.calls.sample(kind)

    def warm(self) -> Any:
        """Score with an encoded history, with set-wise layers for the best ones."""
        return self.scorer.rank(self.cache, self.candidates)

    def warm_pointwise(self) -> Any:
        """Score with an encoded history, without set-wise layers."""
        return self.pointwise.rank(self.cache, self.candidates)

    def cold(self) -> Any:
        """Encode the history for the request."""
        return self.scorer.rank(self.scorer.encode(self.history), self.candidates)

    def one_by_one(self) -> Any:
        """Score each candidate in a call of its own, with an encoded history."""
        count = self.candidates.member.shape[1]
        return [self.pointwise.score(self.cache, self._candidate(c)) for c in range(count)]

    def _candidate(self, number: int) -> Batch:
        one: Batch = jax.tree.map(lambda x: x[:, number : number + 1], self.candidates)
        return one


def model_config(width: int, depth: int, heads: int) -> ModelConfig:
    return ModelConfig(
        features={name: Feature(rows=ROWS) for name in FEATURES},
        actions=("click", "long_view"),
        width=width,
        depth=depth,
        set_depth=1,
        heads=heads,
    )


def request(model: ModelConfig, count: int, first_session: int) -> Batch:
    """Return impressions of one member with random ids and actions."""
    rng = np.random.default_rng(first_session)
    batch = padding_batch(model, 1, count)
    number = np.arange(count, dtype=np.int32)[None]
    return batch._replace(
        member=np.ones((1, count), np.int32),
        session=first_session + number // SESSION,
        time=(number / 10).astype(np.float32),
        ids={name: rng.integers(1, ROWS, (1, count), dtype=np.int32) for name in batch.ids},
        labels=rng.integers(0, 2, batch.labels.shape, dtype=np.int8),
    )


def main() -> None:
    side = Side()
    square = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(jnp.dot)
    matmul = Calls(jax.block_until_ready, queued=False)
    matmul.add("matmul", lambda: product(square, square))
    serve(
        hello=hello,
        start=side.start,
        sample=side.sample,
        matmul=lambda: matmul.sample("matmul"),
    )


if __name__ == "__main__":
    main()
