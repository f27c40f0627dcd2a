"""Configuration of `model.kind=wukong`."""

from dataclasses import dataclass

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class WukongConfig:
    """Sizes of a Wukong layer (Zhang et al. 2024, arXiv:2403.02545).

    Hidden widths are multiples of `model.width`, so that they scale with it.
    """

    fm_outputs: int = 8
    """n_F, output embeddings of the factorization machine block of a layer."""
    compress_outputs: int = 8
    """n_L, output embeddings of the linear compression block of a layer."""
    rank: int = 8
    """k, columns of the projection Y of the inner products."""
    mlp: tuple[int, ...] = (4,)
    """Hidden widths of the MLP of a layer."""
    head: tuple[int, ...] = (4,)
    """Hidden widths between the last layer and the logits."""
    dual_path: bool = False
    """Whether numeric features and table rows also pass through two cross layers (LiGR A.2).
    Numeric features are then not embeddings of the Wukong layers."""

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
