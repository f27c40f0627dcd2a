"""PyTorch's side of the race of tables."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from peers.attention_torch import DEVICE, hello
from peers.lookups import WIDTH, gradient, lookups
from peers.workers import serve

RATE = 0.01


class RowwiseAdagrad:
    """AdaGrad with the mean square of a row's gradient, on PyTorch's sparse gradients."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        self.weight, self.total = weight, torch.zeros(weight.shape[0], device=weight.device)

    @torch.no_grad()
    def step(self) -> None:
        g = self.weight.grad.coalesce()
        rows, values = g.indices()[0], g.values()
        total = self.total.index_add_(0, rows, values.square().mean(1))[rows]
        moves = values * (-RATE / (total.sqrt() + 1e-8))[:, None]
        self.weight.data.index_add_(0, rows, moves)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.weight.grad = None


OPTIMIZERS: dict[str, Callable[[torch.nn.Parameter], Any]] = {
    "Adagrad": lambda w: torch.optim.Adagrad([w], lr=RATE),
    "SparseAdam": lambda w: torch.optim.SparseAdam([w], lr=RATE),
    "row-wise": RowwiseAdagrad,
}


def main() -> None:
    torch.sparse.check_sparse_tensor_invariants.disable()
    calls: dict[str, Callable[[], Any]] = {}

    def prepare(kind: str, law: str, rows: int, count: int) -> None:
        calls.pop(kind, None)
        calls[kind] = steps(lookups(law, rows, count), rows, gradient(count), kind)

    def sample(kind: str, steps: int = 1) -> float:
        """Return the seconds of one of several consecutive steps."""
        began = time.perf_counter()
        for _ in range(steps):
            calls[kind]()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps

    serve(hello=hello, prepare=prepare, sample=sample)


def steps(
    batches: list[np.ndarray], rows: int, upstream: np.ndarray, kind: str
) -> Callable[[], Any]:
    table = torch.nn.Embedding.from_pretrained(
        torch.full((rows, WIDTH), 0.1, device=DEVICE), freeze=False, sparse=True
    )
    optimizer = OPTIMIZERS[kind](table.weight)
    turn = itertools.cycle([torch.from_numpy(ids).to(DEVICE) for ids in batches])
    g = torch.from_numpy(upstream).to(DEVICE)

    def call() -> None:
        table(next(turn)).backward(g)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


if __name__ == "__main__":
    main()
