"""LiGR in PyTorch: SDPA with boolean masks, built once per batch, or FlexAttention.

The same equations, parameters and names as `ligr_jax.nn`, for features with tables, softmax
attention, sigmoid gates, GELU, learned positions and no dropout: `load` takes its parameters.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

Masks = tuple[Any, Any]  # of history and set-wise attention: boolean tensors, or block masks


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; `tables` has rows by feature, in the order of their columns."""

    tables: Mapping[str, int]
    table_width: int
    actions: int
    width: int
    depth: int
    set_depth: int
    heads: int
    ffn_width: int
    max_sessions: int
    rank_weight: float


class Norm(nn.LayerNorm):
    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)


class Gated(nn.Module):
    """h + sublayer(LN(h)) * sigmoid(h W)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor, sublayer: Any) -> Tensor:
        return h + sublayer(self.norm(h)) * torch.sigmoid(self.gate(h))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, allowed: Any) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if isinstance(allowed, BlockMask):
            out = flex_attention(q, k, v, block_mask=allowed)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out(out.transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gated_attention, self.gated_ffn = Gated(shape.width), Gated(shape.width)
        self.attention = Attention(shape.width, shape.heads)
        self.ffn = FeedForward(shape.width, shape.ffn_width)

    def forward(self, h: Tensor, allowed: Any) -> Tensor:
        h = self.gated_attention(h, lambda x: self.attention(x, allowed))
        return self.gated_ffn(h, self.ffn)


class Heads(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm, self.logits = Norm(shape.width), nn.Linear(shape.width, shape.actions)

    def forward(self, h: Tensor) -> Tensor:
        return self.logits(self.norm(h))


class LiGR(nn.Module):
    def __init__(self, shape: Shape, sparse: bool) -> None:
        """Create tables; with `sparse`, they have gradients of the looked-up rows only."""
        super().__init__()
        s = self.shape = shape
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(v, s.table_width, sparse=sparse) for k, v in s.tables.items()}
        )
        self.items = nn.Linear(len(s.tables) * s.table_width, s.width)
        self.actions = nn.Linear(2 * s.actions + 1, s.width, bias=False)
        self.positions = nn.Parameter(torch.zeros(s.max_sessions, s.width))
        self.history = nn.ModuleList(Block(s) for _ in range(s.depth))
        self.heads = Heads(s)
        if s.set_depth:
            self.setwise = nn.ModuleList(Block(s) for _ in range(s.set_depth))
            self.setwise_heads = Heads(s)

    def look_up(self, ids: Mapping[str, Tensor]) -> Tensor:
        """Return [B, N, sum of widths]; not compiled: compiled code has no sparse gradients."""
        return torch.cat([table(ids[name]) for name, table in self.tables.items()], -1)

    def loss(self, features: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        member, session, labels = batch["member"], batch["session"], batch["labels"]
        weight = batch["weight"]
        masks = batch.get("masks") or dense_masks(member, session)
        logits = self(features, session, labels, masks)
        bce = cross_entropy(logits, labels, weight)
        return bce + self.shape.rank_weight * rank_loss(logits, member, session, labels, weight)

    def forward(self, features: Tensor, session: Tensor, labels: Tensor, masks: Masks) -> Tensor:
        """Return logits [B, N, A]."""
        unknown, nothing = labels < 0, (labels == 0).all(-1, keepdim=True)
        kinds = torch.cat([labels > 0, unknown, nothing], -1).to(features.dtype)
        h = torch.stack([self.items(features), self.actions(kinds)], 2)
        h = h + self.positions[session.clamp(max=self.shape.max_sessions - 1)][:, :, None]
        h = h.flatten(1, 2)
        for block in self.history:
            h = block(h, masks[0])
        h = h[:, 0::2]
        logits = self.heads(h)
        if self.shape.set_depth:
            for block in self.setwise:
                h = block(h, masks[1])
            logits = logits + self.setwise_heads(h)
        return logits

    def load(self, params: Mapping[str, Any]) -> None:
        """Load the parameters of `ligr_jax.nn.ligr.LiGR`, arrays by path such as `a/b/kernel`."""
        state = {}
        for path, value in params.items():
            name = path.replace("/", ".")
            name = re.sub(r"^tables\.(\w+)$", r"tables.\1.weight", name)
            name = re.sub(r"^(items|actions)\.(projection|actions)\.", r"\1.", name)
            name = re.sub(r"\.(kernel|scale)$", ".weight", name)
            layers = list(value) if ".layers." in name else [value]
            for i, layer in enumerate(layers):
                tensor = torch.as_tensor(layer)
                turned = tensor.T if path.endswith("kernel") else tensor
                state[name.replace(".layers.", f".{i}.")] = turned.contiguous()
        self.load_state_dict(state)


def dense_masks(member: Tensor, session: Tensor) -> Masks:
    return history_mask(member, session), same(member, session)[:, None]


def block_masks(member: Tensor, session: Tensor) -> Masks:
    """Return FlexAttention's masks of the same pairs."""

    def history(b: Any, h: Any, t: Any, j: Any) -> Tensor:
        q, k = t // 2, j // 2
        earlier = (member[b, q] == member[b, k]) & (session[b, k] < session[b, q])
        return earlier | (j == t) | (j == t - t % 2)

    def in_session(b: Any, h: Any, t: Any, j: Any) -> Tensor:
        return (member[b, t] == member[b, j]) & (session[b, t] == session[b, j])

    b, n = member.shape
    device = member.device.type
    of_history = create_block_mask(history, b, None, 2 * n, 2 * n, device)
    return of_history, create_block_mask(in_session, b, None, n, n, device)


def same(*numbers: Tensor) -> Tensor:
    """Return whether all numbers of two positions are equal, bool [B, N, N]."""
    equal = [x[:, :, None] == x[:, None, :] for x in numbers]
    return torch.stack(equal).all(0)


def history_mask(member: Tensor, session: Tensor) -> Tensor:
    """Return bool [B, 1, 2N, 2N]: a token sees earlier sessions, its item, and itself."""
    member, session = (x.repeat_interleave(2, 1) for x in (member, session))
    place = torch.arange(member.shape[1], device=member.device)
    earlier = same(member) & (session[:, None, :] < session[:, :, None])
    own = (place == place[:, None]) | (place == (place - place % 2)[:, None])
    return (earlier | own)[:, None]


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over actions of the mean over known labels."""
    known = torch.where(labels >= 0, weight[..., None], 0.0)
    loss = F.binary_cross_entropy_with_logits(logits, (labels > 0).float(), reduction="none")
    return ((loss * known).sum((0, 1)) / known.sum((0, 1)).clamp(min=1e-9)).sum()


def rank_loss(
    logits: Tensor, member: Tensor, session: Tensor, labels: Tensor, weight: Tensor
) -> Tensor:
    """Return the Attention Rank loss: the mean over sessions with a positive, for each action."""
    b, n, a = logits.shape
    new = (member[:, 1:] != member[:, :-1]) | (session[:, 1:] != session[:, :-1])
    number = F.pad(new.cumsum(1), (1, 0)) + n * torch.arange(b, device=member.device)[:, None]
    segment = number.reshape(-1, 1).expand(-1, a)
    known = ((weight > 0)[..., None] & (labels >= 0)).view(-1, a)
    z, positive = logits.reshape(-1, a), known & (labels > 0).view(-1, a)

    def total(x: Tensor) -> Tensor:
        return torch.zeros(b * n, a, dtype=x.dtype, device=x.device).scatter_add(0, segment, x)

    lowest = torch.full((b * n, a), -torch.inf, dtype=z.dtype, device=z.device)
    masked = torch.where(known, z.detach(), -torch.inf)
    top = lowest.scatter_reduce(0, segment, masked, "amax").gather(0, segment)
    shifted = torch.where(known, z - torch.where(torch.isfinite(top), top, 0.0), 0.0)
    partition = total(torch.where(known, shifted.exp(), 0.0))
    positives = total(positive.float())
    counted = positives > 0
    mean = total(torch.where(positive, shifted, 0.0)) / positives.clamp(min=1.0)
    loss = torch.where(counted, torch.where(counted, partition, 1.0).log() - mean, 0.0)
    return (loss.sum(0) / counted.sum(0).clamp(min=1e-9)).sum()


def dense_parameters(model: LiGR) -> Sequence[nn.Parameter]:
    return [p for name, p in model.named_parameters() if not name.startswith("tables.")]
