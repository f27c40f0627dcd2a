"""PyTorch's side of the race of training steps: the same model, compiled, on the same batches.

Its batches wait in memory: it pays for no pipeline.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from peers.attention_torch import hello
from peers.ligr_torch import LiGR, Shape, dense_parameters
from peers.workers import Calls, serve

Batch = dict[str, Any]
# Optimizers of the tables, and whether their gradients are sparse.
TABLES = {
    "AdamW": (lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.0, fused=True), False),
    "SparseAdam": (torch.optim.SparseAdam, True),
    "Adagrad, sparse": (torch.optim.Adagrad, True),
}


class Trainer:
    """A model, its two optimizers, and one compiled function for forward and loss."""

    def __init__(self, started: dict[str, Any], params: dict[str, Any], tables: str) -> None:
        optim = started["optim"]
        make, sparse = TABLES[tables]
        self.clip = optim["clip"]
        self.model = LiGR(shape_of(started), sparse)
        self.model.load(params)
        self.dense = dense_parameters(self.model)
        of_tables = list(self.model.tables.parameters())
        # Clipping sparse gradients is slow in PyTorch, and not part of the comparison.
        self.clipped = self.dense if sparse else list(self.model.parameters())
        dense = torch.optim.AdamW(self.dense, optim["dense_lr"], weight_decay=0.0, fused=True)
        self.optimizers = [dense, make(of_tables, lr=optim["table_lr"])]
        self.loss = torch.compile(self.model.loss)

    def gradients(self, batch: Batch, loss: Any) -> torch.Tensor:
        """Compute the gradients and return the loss."""
        value = loss(self.model.look_up(batch["ids"]), batch)
        value.backward()
        return value.detach()

    def step(self, batch: Batch) -> float:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.gradients(batch, self.loss)
        torch.nn.utils.clip_grad_norm_(self.clipped, self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        result: float = loss.item()
        return result


class Side:
    """State of the worker between requests."""

    def start(self, folder: str, started: dict[str, Any], batches: int) -> dict[str, Any]:
        """Build a trainer for each way to update tables; return the values that must agree."""
        with np.load(Path(folder) / "params.npz") as file:
            params = dict(file)
        self.batches = [load_batch(Path(folder) / f"batch-{i}.npz") for i in range(batches)]
        self.trainers = {name: Trainer(started, params, name) for name in TABLES}
        one = self.trainers["AdamW"]
        with FlopCounterMode(display=False) as counter:
            loss = one.gradients(self.batches[0], one.model.loss)
        gradients = [p.grad for p in one.model.parameters()]
        counts = counter.get_flop_counts()["Global"]
        for name in TABLES:
            self.steps(name, 2)  # compiles
        return {
            "loss": float(loss),
            "grad_norm": float(torch.nn.utils.get_total_norm(gradients)),
            "dense": sum(p.numel() for p in one.dense),
            "product_flops": sum(n for op, n in counts.items() if "attention" not in str(op)),
        }

    def steps(self, tables: str, count: int) -> float:
        """Return the seconds of one of several consecutive steps."""
        began = time.perf_counter()
        for i in range(count):
            self.trainers[tables].step(self.batches[i % len(self.batches)])
        return (time.perf_counter() - began) / count


def shape_of(started: dict[str, Any]) -> Shape:
    model = started["model"]
    names = ("width", "depth", "set_depth", "heads", "table_width", "max_sessions")
    return Shape(
        tables={name: model["features"][name]["rows"] for name in sorted(model["features"])},
        actions=len(model["actions"]),
        ffn_width=started["ffn_width"],
        rank_weight=started["optim"]["rank_weight"],
        **{name: model[name] for name in names},
    )


def load_batch(path: Path) -> Batch:
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file}
    ids = {k.removeprefix("ids/"): x for k, x in arrays.items() if k.startswith("ids/")}
    names = ("member", "session", "labels", "weight")
    return {"ids": ids, **{name: arrays[name] for name in names}}


def main() -> None:
    side, calls = Side(), Calls(lambda _: None, queued=False)
    square = torch.ones(2048, 2048)
    calls.add("matmul", lambda: square @ square)
    serve(
        hello=hello,
        matmul=lambda: calls.sample("matmul"),
        start=side.start,
        steps=side.steps,
    )


if __name__ == "__main__":
    main()
