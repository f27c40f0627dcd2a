"""PyTorch's side of the race of requests: the history and all candidates in one forward pass.

The mask depends on the request, so it is made for each one. All candidates go through the set-wise
layer, as in training.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.attention_torch import hello
from peers.ligr_torch import LiGR, history_mask
from peers.step_torch import load_batch, shape_of
from peers.workers import Calls, serve


class Side:
    """State of the worker between requests."""

    def start(self, folder: str, started: dict[str, Any], candidates: int) -> float:
        """Load the model and the request; return the largest difference of logits."""
        with np.load(Path(folder) / "params.npz") as file:
            params = dict(file)
        shape = shape_of({**started, "optim": {"rank_weight": 0.0}})
        self.model = LiGR(shape, sparse=False).eval()
        self.model.load(params)
        self.batch, self.count = load_batch(Path(folder) / "request.npz"), candidates
        self.calls = Calls(lambda _: None, queued=False)
        self.calls.add("eager", lambda: self.request(self.logits))
        compiled = torch.compile(self.logits, dynamic=False)
        self.calls.add("compiled", lambda: self.request(compiled))
        expected = torch.tensor(started["logits"])
        return float((self.request(self.logits)[0] - expected).abs().max())

    @torch.inference_mode()
    def request(self, logits: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Return the logits of the candidates [1, C, A]."""
        member, session = (self.batch[name] for name in ("member", "session"))
        n = session.shape[1] - self.count
        # Tokens: two for an impression of the history, one for a candidate.
        t = 2 * n + self.count
        mask = torch.eye(t, dtype=torch.bool)[None, None]
        mask[:, :, : 2 * n, : 2 * n] = history_mask(member[:, :n], session[:, :n])
        mask[:, :, 2 * n :, : 2 * n] = True
        features = self.model.look_up(self.batch["ids"])
        return logits(features, session, self.batch["labels"][:, :n], mask)

    def logits(self, features: Any, session: Any, labels: Any, mask: Any) -> torch.Tensor:
        """Return the logits of the items behind those with labels."""
        model, n = self.model, labels.shape[1]
        unknown, nothing = labels < 0, (labels == 0).all(-1, keepdim=True)
        kinds = torch.cat([labels > 0, unknown, nothing], -1).to(features.dtype)
        position = model.positions[session.clamp(max=model.shape.max_sessions - 1)]
        items, actions = model.items(features) + position, model.actions(kinds) + position[:, :n]
        h = torch.cat([torch.stack([items[:, :n], actions], 2).flatten(1, 2), items[:, n:]], 1)
        for block in model.history:
            h = block(h, mask)
        h = h[:, 2 * n :]
        logits: torch.Tensor = model.heads(h)
        for block in model.setwise:
            h = block(h, None)
        return logits + model.setwise_heads(h)

    def sample(self, kind: str) -> float:
        return self.calls.sample(kind)


def main() -> None:
    side = Side()
    serve(hello=hello, start=side.start, sample=side.sample)


if __name__ == "__main__":
    main()
