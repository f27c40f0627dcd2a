"""PyTorch's side of the attention races: `sdpa` with the boolean mask, and compiled `flex`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from peers.cases import Case, dense, qkvg, ranges
from peers.workers import Calls, loaded_allocator, serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    queued = DEVICE == "cuda"
    calls = Calls(lambda _: torch.cuda.synchronize() if queued else None, queued)

    def prepare(key: str, case: dict[str, Any], form: str, backward: bool) -> None:
        calls.add(key, call_of(Case(**case), form, backward))

    def save(key: str, path: str, rows: int) -> None:
        """Write the output and the gradients of the first rows, as [B, T, H, K]."""
        results = (x.detach()[:rows].transpose(1, 2).float().cpu() for x in calls.result(key))
        np.savez(path, *(x.numpy() for x in results))

    def forget() -> None:
        calls.forget()
        torch.compiler.reset()
        if queued:
            torch.cuda.empty_cache()

    serve(hello=hello, prepare=prepare, sample=calls.sample, save=save, forget=forget)


def hello() -> str:
    threads = f"{torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else threads
    return f"PyTorch {torch.__version__}, {where}, preloaded allocator: {loaded_allocator()}"


def call_of(case: Case, form: str, backward: bool) -> Callable[[], tuple[torch.Tensor, ...]]:
    # [B, H, T, K] and contiguous: the fastest layout for PyTorch's kernels.
    q, k, v, g = (
        torch.from_numpy(x).to(DEVICE, getattr(torch, case.dtype)).transpose(1, 2).contiguous()
        for x in qkvg(case)
    )
    attention = {"sdpa": sdpa, "flex": flex}[form](case)

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return (attention(q, k, v),)

    def both_ways() -> tuple[torch.Tensor, ...]:
        out = attention(q, k, v)
        return out, *torch.autograd.grad(out, (q, k, v), g)

    for x in (q, k, v):
        x.requires_grad_(backward)
    call = both_ways if backward else forward
    return graphed(call) if DEVICE == "cuda" else call


def graphed(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return the call as a CUDA graph, so that no kernel waits for Python to launch it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def sdpa(case: Case) -> Callable[..., torch.Tensor]:
    mask = torch.from_numpy(dense(case)[:, None]).to(DEVICE)
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flex(case: Case) -> Callable[..., torch.Tensor]:
    """Return FlexAttention with a block mask of the same ranges, which is built once."""
    lo, hi, own = (torch.tensor(x, device=DEVICE) for x in ranges(case))

    def allowed(b: Any, h: Any, t: Any, j: Any) -> torch.Tensor:
        return (lo[b, t] <= j) & (j < hi[b, t]) | (j == own[b, t]) | (j == t)

    blocks = create_block_mask(allowed, case.batch, None, case.tokens, case.tokens, DEVICE)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


if __name__ == "__main__":
    main()
