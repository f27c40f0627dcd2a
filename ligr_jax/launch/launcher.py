"""Rendering the jobs of a sweep, and submitting those that the scheduler does not have yet."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ligr_jax import contents
from ligr_jax.atomic import make_directory
from ligr_jax.config import config_to_json
from ligr_jax.errors import UsageError, file_errors
from ligr_jax.launch.client import SchedulerError
from ligr_jax.launch.environment import job_environment
from ligr_jax.launch.grace import choose_grace
from ligr_jax.launch.jobs import assign_jobs, job_arguments
from ligr_jax.launch.kubernetes import JobSet, TrainJob
from ligr_jax.launch.largest import Unpredicted, find_unpredicted
from ligr_jax.launch.local import Local
from ligr_jax.launch.manifest import (
    Job,
    Launch,
    read_launch,
    require_same,
    write_launch,
)
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.rendering import load_template, render
from ligr_jax.launch.skypilot import SkyPilot
from ligr_jax.launch.slurm import Slurm
from ligr_jax.launch.target import Target
from ligr_jax.lock import exclusive
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.runs.staged import stage_runs
from ligr_jax.scaling.record_points import record_points
from ligr_jax.scaling.sweep import ResolvedPoint, read_sweep, resolve_points, select_points
from ligr_jax.store.mirror import local_path

_log = logging.getLogger(__name__)

TARGETS: dict[str, type[Target]] = {
    "local": Local,
    "slurm": Slurm,
    "jobset": JobSet,
    "trainjob": TrainJob,
    "skypilot": SkyPilot,
}
_RESTARTS = 10  # after a lost process; restarts after a signal are not counted


def launch(options: LaunchOptions, dry_run: bool = False) -> list[str]:
    """Launch a sweep, or the points of it that are missing or have failed.

    The largest run of a ladder is submitted once the other runs of the ladder have finished and its
    result has been predicted from theirs.

    Args:
        options: what to launch, and where.
        dry_run: write the files and submit nothing.

    Returns:
        Lines that say what was submitted, or what would be.

    Raises:
        ConfigError: a point is invalid.
        LaunchConflict: the names belong to another sweep.
        SchedulerError: the scheduler does not answer, or it refuses a job.
        UsageError: an option is missing or has no meaning for the target.
    """
    target = TARGETS[options.target](options)
    if options.hosts > 1 and options.group > 1:
        raise UsageError(
            f"--group {options.group} trains points in one process, and --hosts {options.hosts} "
            "needs several; leave one of them out"
        )
    if not dry_run:
        target.require_client()
    specs = [spec for sweep in options.sweeps for spec in read_sweep(Path(sweep))]
    data, out = local_path(options.data), local_path(options.out)
    all_points = resolve_points(specs, data, options.assignments)
    points = select_points(all_points, options.only)
    stage_runs(out)
    contents.require_no_other(out, contents.SWEEP)
    make_directory(options.files)
    with exclusive(options.files, "is launching this sweep"):
        plan = _plan(options, points, all_points)
        largest = [] if target.predicts else find_unpredicted(all_points, data, out)
        return _launch(options, target, plan, points, largest, dry_run)


def _plan(
    options: LaunchOptions, points: Sequence[ResolvedPoint], all_points: Sequence[ResolvedPoint]
) -> Launch:
    """Return the launch: earlier jobs unchanged, and new jobs for points without a job."""
    before = read_launch(options.files)
    known = before.jobs if before else ()
    entries = {entry["run"]: entry for entry in (before.points if before else ())}
    jobs = assign_jobs(points, options.group, options.name, known)
    selected = {p.name for p in points}
    grace = choose_grace(
        options.grace_s,
        [job.points for job in jobs if selected & set(job.points)],
        {p.name: p.config for p in all_points},
        local_path(options.out),
    )
    plan = Launch(
        name=options.name,
        target=options.target,
        data=options.data,
        out=options.out,
        hosts=options.hosts,
        devices=options.devices,
        group=options.group,
        jobs=jobs,
        points=tuple((entries | {p.name: p.to_json() for p in points}).values()),
        grace_s=grace.seconds,
        grace_source=grace.source,
    )
    if before:
        require_same(before, plan, options.files)
    return plan


def _launch(
    options: LaunchOptions,
    target: Target,
    plan: Launch,
    points: Sequence[ResolvedPoint],
    largest: Sequence[Unpredicted],
    dry_run: bool,
) -> list[str]:
    """Write the files of a launch and submit the jobs that are neither finished nor queued."""
    data, out = local_path(options.data), local_path(options.out)
    unfinished = {p.name for p in points if summary_or_none(out / p.name) is None}
    states = _states(target, plan, dry_run)
    open_jobs = [job for job in plan.jobs if unfinished & set(job.points)]
    missing = [job for job in open_jobs if job.name not in states]
    waiting = {
        each.file: [job for job in missing if each.runs & set(job.points)]
        for each in largest
        if each.missing and not options.submit_largest
    }
    jobs = [job for job in missing if not any(job in held for held in waiting.values())]
    write_launch(plan, options.files)
    _write_files(options, target, plan, points, jobs)
    lines = [
        f"{options.name}: {len(points)} points, {len(points) - len(unfinished)} finished; "
        f"{len(open_jobs) - len(missing)} jobs wait or run, {len(jobs)} to submit "
        f"(files in {options.files})"
    ]
    lines += [each.waits(held) for each in largest if (held := waiting.get(each.file))]
    commands = target.commands(plan, jobs) if jobs else []
    if dry_run:
        return [*lines, *(shlex.join(command) for command in commands)]
    if jobs:
        make_directory(out)
        record_points(points, out)
        target.require_capacity(plan)
    for each in largest:
        if any(each.runs & set(job.points) for job in jobs):
            each.predict(data, out)
    for command in commands:
        _log.info(shlex.join(command))
        lines += target.submit(command).splitlines()
    return lines


def _states(target: Target, plan: Launch, dry_run: bool) -> dict[str, str]:
    """Return the states of the jobs that wait or run; none if a dry run cannot ask."""
    if not dry_run:
        return target.states(plan)
    try:
        target.require_client()
        return target.states(plan)
    except SchedulerError as e:
        _log.warning(f"the jobs that wait or run are not known: {e}")
        return {}


def _write_files(
    options: LaunchOptions,
    target: Target,
    plan: Launch,
    points: Sequence[ResolvedPoint],
    jobs: Sequence[Job],
) -> None:
    """Write the configurations of the points and the rendered files."""
    files = options.files
    with file_errors("write", files):
        for directory in (files / "points", files / "logs"):
            directory.mkdir(exist_ok=True)
        for point in points:
            (files / "points" / f"{point.name}.json").write_text(
                config_to_json(point.config), encoding="utf-8"
            )
    entries = {entry["run"]: entry for entry in plan.points}
    described = {
        job.name: {**asdict(job), "arguments": job_arguments(plan, job, entries)}
        for job in (plan.jobs if target.one_file else jobs)
    }
    common = {
        **asdict(options),
        **target.values(),
        "grace_s": plan.grace_s,
        "grace_source": plan.grace_source,
        "environment": job_environment(options),
        "ligr": [sys.executable, "-m", "ligr_jax"],
        "restarts": _RESTARTS,
        "jobs": list(described.values()),
    }
    path = target.template_path
    template = load_template(path)
    with file_errors("write", files):
        for job in jobs[:1] if target.one_file else jobs:
            text = render(template, path, {**common, "job": described[job.name]})
            target.file_of(job).write_text(text, encoding="utf-8")
