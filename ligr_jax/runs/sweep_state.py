"""State of a sweep, from the files of its runs: each point, the time left, the cost so far."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.files import SWEEP, RunFiles
from ligr_jax.runs.listed import read_listed
from ligr_jax.runs.staged import stage_runs
from ligr_jax.runs.state import STATES, RunState, read_state
from ligr_jax.store.mirror import local_path


@dataclass(frozen=True)
class PointState:
    """State of one point of a sweep.

    Attributes:
        run: State of its run.
        assignments: Its assignments; empty if sweep.json does not list the run.
        eta_s: Seconds until the run finishes, at its present speed; None unless it is running.
    """

    run: RunState
    assignments: tuple[str, ...] = ()
    eta_s: float | None = None


@dataclass(frozen=True)
class SweepState:
    """State of a sweep.

    Attributes:
        points: The points in the order of sweep.json; then runs that sweep.json does not list.
        counts: Number of points in each of `STATES`.
        runners: Number of processes that train points now.
        eta_s: Seconds until no point is waiting, running or stopped, with as many runners as now,
            or with one if there is none; None if it cannot be estimated.
        device_hours: Device hours so far.
        flops: Training FLOPs so far, as `flops_model`.
    """

    points: tuple[PointState, ...]
    counts: dict[str, int]
    runners: int
    eta_s: float | None
    device_hours: float
    flops: float

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train, except points that failed."""
        return not any(self.counts[s] for s in ("waiting", "running", "stopped"))

    def to_json(self) -> dict[str, Any]:
        """Return all values as plain JSON values."""
        points = [
            {**asdict(p.run), "assignments": list(p.assignments), "eta_s": p.eta_s}
            for p in self.points
        ]
        names = ("counts", "runners", "eta_s", "device_hours", "flops")
        return {"points": points, **{name: getattr(self, name) for name in names}}


def read_sweep_state(out: Path) -> SweepState:
    """Return the state of a sweep, or of a single run.

    Args:
        out: Directory of the runs, or of one run; nothing is written to it.

    Raises:
        BadInput: The directory has neither runs nor a list of points.
        DamagedFile: sweep.json is damaged.
    """
    out = local_path(out)
    stage_runs(out)
    listed = {p["run"]: p for p in read_listed(out / SWEEP)["points"] if "run" in p}
    if RunFiles(out).exists:
        directories = [out]
    elif out.is_dir():
        unlisted = (d for d in sorted(out.iterdir()) if d.name not in listed)
        directories = [out / name for name in listed]
        directories += [d for d in unlisted if d.is_dir() and RunFiles(d).exists]
    else:
        raise BadInput(f"{out}: no such directory; give the --out of a sweep or of a run")
    if not directories:
        raise BadInput(f"{out}: neither runs nor {SWEEP}; give the --out of a sweep or of a run")

    estimates = {name: point.get("estimate", {}) for name, point in listed.items()}
    states = [read_state(d, estimates.get(d.name, {}).get("steps")) for d in directories]
    seconds = {name: e["seconds"] for name, e in estimates.items() if "seconds" in e}
    scale = _actual_per_estimated(states, seconds)
    processes = Counter((s.host, s.process) for s in states if s.state == "running")
    left = [seconds_left(s, seconds.get(s.run), scale) for s in states]
    points = tuple(
        PointState(
            run=state,
            assignments=tuple(listed.get(state.run, {}).get("assignments", ())),
            # Runs that train together share a process, and the seconds of each are its share.
            eta_s=remaining * processes[state.host, state.process]
            if remaining is not None and state.state == "running"
            else None,
        )
        for state, remaining in zip(states, left)
    )
    return SweepState(
        points=points,
        counts={name: sum(s.state == name for s in states) for name in STATES},
        runners=len(processes),
        eta_s=_sweep_eta(points, left, len(processes)),
        device_hours=sum(s.device_seconds for s in states) / 3600,
        flops=sum(s.flops for s in states),
    )


def _sweep_eta(
    points: tuple[PointState, ...], left: list[float | None], runners: int
) -> float | None:
    unfinished = [
        seconds
        for point, seconds in zip(points, left)
        if point.run.state not in ("finished", "failed")
    ]
    known = [seconds for seconds in unfinished if seconds is not None]
    if len(known) < len(unfinished):
        return None
    longest = max((p.eta_s for p in points if p.eta_s is not None), default=0.0)
    return max(longest, sum(known) / max(1, runners))


def seconds_left(state: RunState, estimated: float | None, scale: float) -> float | None:
    """Return the seconds of training left; None if neither its steps nor an estimate are known.

    Args:
        state: State of the run.
        estimated: Estimated seconds of the whole run; None if there is no estimate.
        scale: Ratio of actual to estimated seconds.
    """
    if state.step and state.steps and state.seconds:
        left = (state.steps - state.step) * state.seconds / state.step
    elif estimated is not None:
        left = estimated * scale
    else:
        return None
    # The newest row is as old as the newest change of a file, or older.
    return max(0.0, left - (state.idle_s or 0.0)) if state.state == "running" else left


def _actual_per_estimated(states: list[RunState], seconds: dict[str, float]) -> float:
    """Return the median ratio of actual to estimated seconds of finished points; 1 for none."""
    ratios = []
    for state in states:
        if state.state == "finished" and seconds.get(state.run):
            ratios.append(state.device_seconds / state.devices / seconds[state.run])
    return median(ratios) if ratios else 1.0
