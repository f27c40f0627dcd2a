"""What `ligr plan` is asked."""

from dataclasses import dataclass
from pathlib import Path


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
