"""The request of `ligr plan`."""

from dataclasses import dataclass
from pathlib import Path

from ligr_jax.data.schema import BadInput


@dataclass(frozen=True)
class PlanRequest:
    """Compute budget and constraints of the next run.

    Attributes:
        flops: budget, on the axis `axis`.
        metric: column of the metric to predict.
        lower_is_better: direction of the metric.
        axis: column of compute.
        device: name of the device; None: that of the runs.
        devices: number of devices; None: that of the runs.
        share: fraction of the device's peak FLOP/s that training reaches; None: measured in the
            runs, or assumed.
        serve_ms: largest latency of a serving request, in milliseconds; None: no limit.
        candidates: candidates of a serving request.
        data: directory of prepared data; None: that of the runs.
        out: directory of the planned run's sweep.
        far: plan however far the budget is beyond the runs.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
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
            raise BadInput(
                f"--mfu {self.share:g} must be in (0, 1]: it is a fraction of the device's peak"
            )
