"""Configuration of a model of semantic ids."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from ligr_jax.data.schema import BadInput

CHOICES = {"method": ("rqvae", "rqkmeans"), "quantization": ("levels", "sum")}


@dataclass(frozen=True)
class SidConfig:
    """Semantic ids with N = `levels` codes in 0..K-1, K = `codes` (LiGR 3.3: 3 x 1,000, latent 8).

    Attributes:
        method: `rqvae` learns an encoder, a decoder and codebooks; `rqkmeans` is residual k-means
            on the vectors, without a network.
        levels: N, levels.
        codes: K, codes per level.
        seed: seed of initialization, batches and resets.
        batch: rows per step.
        steps: optimizer steps (rqvae), or passes over the corpus per level (rqkmeans); 0: 1,000
            or 20.
        latent: d, width of the latent (rqvae).
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        rate: learning rate (rqvae).
        beta: weight of the commitment loss (rqvae).
        gamma: weight of the FLOPs regularizer (`rqvae.flops_regularizer`).
        temperature: softness of its assignments.
        quantization: loss of rqvae. `levels`: codebook and commitment loss at every level (Rajput
            et al. 2023); `sum`: LiGR's formula, beta |z - z_q|^2 only.
        decay: decay of the moving average of each code's share of assignments.
        dead: a code whose average share is below `dead` / K is reset to a residual of its level.
    """

    method: Literal["rqvae", "rqkmeans"] = "rqvae"
    levels: int = 3
    codes: int = 1000
    seed: int = 0
    batch: int = 1024
    steps: int = 0  # 0: 1,000 or 20
    latent: int = 8
    hidden: tuple[int, ...] = (256, 128)  # of the encoder; the decoder's in reverse
    rate: float = 3e-3
    beta: float = 0.25
    gamma: float = 100.0
    temperature: float = 0.1
    quantization: Literal["levels", "sum"] = "levels"
    decay: float = 0.99
    dead: float = 0.1

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadInput(f"{name}={getattr(self, name)}; choose one of {', '.join(choices)}")
        for name, low, high in (
            ("levels", 1, 16),
            ("codes", 2, 2**20),
            ("batch", 1, 2**20),
            ("steps", 0, 2**31 - 1),
            ("latent", 1, 4096),
            ("rate", 1e-8, 10),
            ("beta", 0, 1e6),
            ("gamma", 0, 1e6),
            ("temperature", 1e-6, 1e6),
            ("decay", 0, 1 - 1e-6),
            ("dead", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInput(f"{name}={value}; give a number from {low:,} to {high:,}")
        if self.codes**self.levels >= 2**63:  # a tuple is to be one id
            raise BadInput(f"codes={self.codes}, levels={self.levels}: keep codes^levels < 2^63")
        if not all(width >= 1 for width in self.hidden):
            raise BadInput(f"hidden={self.hidden}; give widths of at least 1")
        if not self.steps:
            object.__setattr__(self, "steps", 1000 if self.method == "rqvae" else 20)

    @property
    def updates(self) -> int:
        """Number of updates of the training state in total."""
        return self.steps if self.method == "rqvae" else self.levels * self.steps


def from_plain(raw: dict[str, object]) -> SidConfig:
    """Return the configuration from JSON values; the inverse of `dataclasses.asdict`."""
    names = {f.name for f in dataclasses.fields(SidConfig)}
    unknown = sorted(set(raw) - names)
    if unknown:
        raise BadInput(f"a configuration of semantic ids has no fields {unknown}")
    return SidConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})  # type: ignore[arg-type]
