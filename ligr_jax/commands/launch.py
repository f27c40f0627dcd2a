"""Launch a sweep on a scheduler: SLURM, Kubernetes (JobSet or TrainJob), SkyPilot, or this machine.

Every point becomes a job (with --group K, up to K points that differ only in seed and rates). The
scheduler owns the jobs. When the same command runs again, it submits only jobs that are neither
finished nor in the queue, so it also repeats failed ones. Jobs that are preempted are started again
by the scheduler and continue from their checkpoints.

The largest run of a ladder is held back until the other runs of the ladder have finished: the same
command then predicts its result (OUT/prediction*.json) and submits it. --submit-largest does both
at once, with the runs that have finished by then.

The files are written to OUT/launch/NAME: manifest.json (which job trains which points), the
configuration of every point, and what the scheduler gets. --dry-run stops there and prints the
commands. --print TARGET prints a template (Jinja2) to edit; --template renders the edited file.

examples:
  ligr launch tiny/ladder --target slurm --data /shared/prepared --out /shared/runs --dry-run
  ligr launch paper/ladder --target slurm --data D --out R --devices 8 --cpus 96 --partition gpu
  ligr launch paper/ladder --target slurm --data D --out R --hosts 4 --devices 8 --time 24:00:00
  ligr launch tiny/seeds --target slurm --data D --out R --group 4 --jobs 16
  ligr launch paper/ladder --target jobset --data D --out R --image IMAGE --queue research \\
      --devices 8 --accelerator NVIDIA-H100-80GB-HBM3
  ligr launch paper/ladder --target jobset --data D --out R --image IMAGE --hosts 2 --devices 4 \\
      --accelerator tpu-v6e-slice:2x4
  ligr launch paper/ladder --target trainjob --data D --out R --image IMAGE --hosts 2 --devices 8
  ligr launch paper/ladder --target skypilot --data D --out R --image IMAGE --accelerator H100
  ligr launch --print slurm > my.sbatch
  ligr launch tiny/ladder --target slurm --data D --out R --template my.sbatch
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from ligr_jax.commands.arguments import count, positive_int

_TARGETS = ("local", "slurm", "jobset", "trainjob", "skypilot")


class _Print(argparse.Action):
    """Print a template and end."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, name: Any, option: object = None
    ) -> None:
        from ligr_jax.launch.launcher import TARGETS
        from ligr_jax.launch.rendering import TEMPLATES

        print((TEMPLATES / TARGETS[name].template).read_text(encoding="utf-8"), end="")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SWEEP",
        help="file, name of a shipped sweep (`ligr sweep --list`), or name=value for every point",
    )
    parser.add_argument("--target", required=True, choices=_TARGETS, help="where to launch")
    parser.add_argument("--data", required=True, help="prepared data, as the jobs see it")
    parser.add_argument("--out", required=True, help="directory of the runs, as the jobs see it")
    parser.add_argument(
        "--print", action=_Print, choices=_TARGETS, help="print the template of a target and stop"
    )
    parser.add_argument("--dry-run", action="store_true", help="write the files, submit nothing")
    parser.add_argument("--name", help="first part of all names (default: the first sweep)")
    parser.add_argument(
        "--files",
        type=Path,
        metavar="DIR",
        help="directory to write (default OUT/launch/NAME; ./launch/NAME if OUT is a URI)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="launch only points that match every word: name=value, sweep or run",
    )
    parser.add_argument(
        "--submit-largest",
        action="store_true",
        default=None,
        help="do not wait for the other runs of a ladder before the largest one is submitted",
    )
    job = parser.add_argument_group("jobs")
    job.add_argument(
        "--group",
        type=positive_int,
        metavar="K",
        help="train up to K points that differ only in seed and rates as one program (default 1)",
    )
    job.add_argument("--hosts", type=positive_int, metavar="N", help="hosts of a job (default 1)")
    job.add_argument(
        "--devices",
        type=count,
        metavar="N",
        help="accelerators of a host (default 1; 0 trains on the CPU)",
    )
    job.add_argument("--cpus", type=positive_int, metavar="N", help="CPU cores of a host")
    job.add_argument(
        "--accelerator",
        metavar="TYPE",
        help="slurm: type of the GRES, e.g. h100; skypilot: e.g. H100; Kubernetes: the product of "
        "a GPU node, or TYPE:TOPOLOGY of a TPU slice",
    )
    job.add_argument(
        "--grace-s",
        type=positive_int,
        metavar="S",
        help="seconds to save after the signal to stop (default: from the save times of finished "
        "runs, else 120)",
    )
    job.add_argument("--template", type=Path, metavar="FILE", help="render this file instead")
    particular = parser.add_argument_group("options of single targets")
    particular.add_argument(
        "--jobs", type=positive_int, metavar="N", help="local, slurm: jobs that run at once"
    )
    particular.add_argument("--partition", help="slurm")
    particular.add_argument("--account", help="slurm")
    particular.add_argument("--time", help="slurm: time limit of a job, e.g. 08:00:00")
    particular.add_argument("--namespace", help="jobset, trainjob (default: default)")
    particular.add_argument("--queue", help="jobset, trainjob: local queue of Kueue")
    particular.add_argument("--image", help="jobset, trainjob, skypilot: image with `ligr`")
    particular.add_argument(
        "--spot", action="store_true", default=None, help="skypilot: use spot instances"
    )


def run(args: argparse.Namespace) -> int:
    import jax

    # Nothing is computed here; accelerators are for the jobs.
    jax.config.update("jax_platforms", "cpu")

    from ligr_jax.errors import UsageError
    from ligr_jax.launch.jobs import default_name, require_name
    from ligr_jax.launch.launcher import launch
    from ligr_jax.launch.manifest import DIRECTORY
    from ligr_jax.launch.options import LaunchOptions
    from ligr_jax.store.mirror import address, is_uri

    sweeps = tuple(word for word in args.words if "=" not in word)
    if not sweeps:
        raise UsageError("name at least one sweep, e.g. tiny/depth; see `ligr sweep --list`")
    name = args.name or default_name(sweeps[0])
    require_name(name)
    given = {
        field.name: getattr(args, field.name)
        for field in fields(LaunchOptions)
        if getattr(args, field.name, None) is not None
    }
    # Jobs get the URIs of object stores. SLURM writes logs to `files`, which must be shared.
    out = address(args.out)
    files = args.files or (Path() if is_uri(out) else Path(out)) / DIRECTORY / name
    options = LaunchOptions(
        **{
            **given,
            "name": name,
            "data": address(args.data),
            "out": out,
            "files": files.absolute(),
            "sweeps": sweeps,
            "assignments": tuple(word for word in args.words if "=" in word),
            "only": tuple(args.only),
        }
    )
    for line in launch(options, dry_run=args.dry_run):
        print(line)
    return 0
