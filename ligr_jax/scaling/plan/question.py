"""What `ligr plan` is asked."""

from dataclasses import dataclass
from pathlib import Path

from ligr_jax.data.schema import BadInput


@dataclass(frozen=True)
class Asked:
    """A budget and its circumstances.

    flops: the budget, on `axis`. device, devices: None for the runs' own. share: of the device's
    peak that is reached; None to measure it in the runs, or assume it. serve_ms: the longest that
    a request of `candidates` may take. data: prepared data, None for the runs' own. far: answer
    however far beyond the runs. out: the directory that the planned run would join.
    """

    flops: float
    metric: str = "validation/ne"
    lower_is_better: bool = True
    axis: str = "flops_model"
    device: str | None = None
    devices: int | None = None
    share: float | None = None
    serve_ms: float | None = None
    candidates: int = 512
    data: Path | None = None
    out: Path = Path("runs")
    far: bool = False
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("devices", "serve_ms", "candidates"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"--{name.replace('_', '-')} {value:g} must be above 0")
        if self.share is not None and not 0 < self.share <= 1:
            raise BadInput(f"--mfu {self.share:g} must be in (0, 1]: a share of the device's peak")
