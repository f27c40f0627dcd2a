"""The layers of `model.kind=wukong`."""

from dataclasses import dataclass

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class WukongConfig:
    """A layer's outputs and their rank (Zhang et al. 2024, arXiv:2403.02545).

    Hidden widths are in units of `model.width`, so that they grow with it.
    """

    fm_outputs: int = 8  # n_F: embeddings that come of factorization machines
    compress_outputs: int = 8  # n_L: embeddings that come of linear compression
    rank: int = 8  # k: columns of the projection Y of all inner products
    mlp: tuple[int, ...] = (4,)  # hidden widths of a layer's MLP
    head: tuple[int, ...] = (4,)  # hidden widths between the last layer and the logits
    # Numbers and table rows go through two cross layers besides, as LiGR A.2 tried it; numbers are
    # then no embeddings of the layers.
    dual_path: bool = False

    def __post_init__(self) -> None:
        for name in ("fm_outputs", "compress_outputs", "rank"):
            value = getattr(self, name)
            require(value >= 1, f"model.wukong.{name}={value} must be >= 1")
        for name in ("mlp", "head"):
            widths = getattr(self, name)
            require(
                all(width >= 1 for width in widths),
                f"model.wukong.{name}={','.join(map(str, widths))}: hidden widths must be >= 1",
            )
