"""PyTorch's side of the race of steps on a GPU: the same model, compiled, with FlexAttention.

Parameters are float32 and activations bfloat16 by autocast. The block masks are built once for the
one batch, so that a step does not pay for them. On a CPU, which has no backward pass of
FlexAttention, the model runs with SDPA and boolean masks, to see that this side runs.
"""

from typing import Any

import numpy as np
import torch

from peers.attention_torch import DEVICE, hello
from peers.cases import Case, impressions
from peers.ligr_torch import LiGR, block_masks, dense_masks, dense_parameters
from peers.step_torch import shape_of
from peers.workers import Calls, serve


def main() -> None:
    queued = DEVICE == "cuda"
    calls = Calls(lambda _: torch.cuda.synchronize() if queued else None, queued)

    def prepare(
        key: str, case: dict[str, Any], started: dict[str, Any], params: str, table_rows: int
    ) -> dict[str, float]:
        """Compile and warm a step; return loss and gradient norm of the first one."""
        step = Step(Case(**case), started, params, table_rows)
        first = step(), step.norm
        calls.add(key, step)
        return {name: float(value) for name, value in zip(("loss", "grad_norm"), first)}

    def forget() -> None:
        calls.forget()
        torch.compiler.reset()
        if queued:
            torch.cuda.empty_cache()

    serve(hello=hello, prepare=prepare, sample=calls.sample, forget=forget)


class Step:
    """A training step: compiled loss, AdamW for dense parameters, sparse AdaGrad for tables."""

    def __init__(self, case: Case, started: dict[str, Any], params: str, table_rows: int) -> None:
        optim = started["optim"]
        self.clip, self.dtype = optim["clip"], getattr(torch, case.dtype)
        self.batch = batch_of(case, started, table_rows)
        self.model = LiGR(shape_of(started), sparse=True)
        with np.load(params) as file:
            self.model.load(dict(file))
        self.model.to(DEVICE)
        self.dense = dense_parameters(self.model)
        dense = torch.optim.AdamW(self.dense, optim["dense_lr"], weight_decay=0.0, fused=True)
        tables = torch.optim.Adagrad(list(self.model.tables.parameters()), lr=optim["table_lr"])
        self.optimizers = [dense, tables]
        self.loss = torch.compile(self.model.loss, dynamic=False)

    def __call__(self) -> torch.Tensor:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        features = self.model.look_up(self.batch["ids"])
        with torch.autocast(DEVICE, self.dtype, enabled=self.dtype != torch.float32):
            loss: torch.Tensor = self.loss(features, self.batch)
        loss.backward()
        self.norm = torch.nn.utils.clip_grad_norm_(self.dense, self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


def batch_of(case: Case, started: dict[str, Any], table_rows: int) -> dict[str, Any]:
    names = tuple(sorted(started["model"]["features"]))
    arrays = impressions(case, len(started["model"]["actions"]), names, table_rows)
    batch: dict[str, Any] = {k: torch.from_numpy(x).to(DEVICE) for k, x in arrays.items()}
    batch["ids"] = {name: batch.pop(f"ids/{name}") for name in names}
    masks = block_masks if DEVICE == "cuda" else dense_masks
    batch["masks"] = masks(batch["member"], batch["session"])
    return batch


if __name__ == "__main__":
    main()
