"""Train one model on prepared data, or continue an interrupted run.

Dotted names configure everything; `--show` prints all names with their values. Features and actions
keep the names of their columns (model.features.user/age.rows). In a list, a name that contains a
comma is quoted as in CSV files: 'model.features="a,b",c'. When the same command runs again, an
interrupted run continues and a finished run is left unchanged. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1
save the run; the exit status is then 85, and the same command continues.

examples:
  ligr train --data data/world/prepared --out runs/first
  ligr train --data data/world/prepared --out runs/deep model.depth=8 model.width=128 model.heads=4
  ligr train --data data/world/prepared --out runs/ids model.features=item_id,actor_id
  ligr train --data data/world/prepared --out runs/long --preset demo-7 train.seed=1
  ligr train --data data/world/prepared --out runs/rival --preset lirank-feed
  ligr train --data data/world/prepared --show optim.batch=64
  ligr train --data data/world/prepared --plan mesh.data=2 mesh.model=4
  ligr train --data data/world/prepared --out runs/split mesh.model=8 mesh.placement=column_wise
  ligr train --data data/world/prepared --together group.json --preset demo-4
  ligr train --data data/world/prepared --out runs/day-1 --warm-start runs/day-0 \\
      --cold-weights runs/cold data.edges=T0,T1,T2,T2 train.warm.fisher_weight=10

`--warm-start` starts from the weights of another run and trains on one day of data. `data.edges`
names the day in milliseconds since 1970 (start and end of train, end of validation, end of test);
earlier days are history. `train.warm.*` penalizes the distance from the weights of that run and of
a run that was trained from scratch (`--cold-weights`).

`--together` trains several runs as one program, which is faster for small models. The runs may
differ in train.seed, optim.dense_lr, optim.table_lr and optim.weight_decay. A file, or the option
itself, lists them:

  [{"out": "runs/a", "assignments": ["train.seed=0"]},
   {"out": "runs/b", "assignments": ["train.seed=1"]}]

Each run keeps its own directory, as if it was trained alone; assignments on the command line apply
to all runs. If some runs diverge, the others finish, OUT/error.txt has the reason, and the exit
status is 1. If another process is training one of the runs, none is changed and the status is 75.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ligr_jax.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="prepared data (ligr prepare)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="run directory to write")
    where.add_argument(
        "--runs", type=Path, help="parent of the run directory, which is named by the configuration"
    )
    where.add_argument(
        "--together", metavar="FILE", help="JSON list of runs, or a file with one; see above"
    )
    where.add_argument("--show", action="store_true", help="print the configuration and stop")
    where.add_argument(
        "--plan",
        action="store_true",
        help="print the placement of tables and the speed of the input, and stop",
    )
    parser.add_argument("--preset", metavar="NAME", help="named set of values, e.g. demo-4")
    parser.add_argument(
        "--warm-start", type=Path, metavar="RUN", help="start from the weights of this run"
    )
    parser.add_argument(
        "--cold-weights", type=Path, metavar="RUN", help="run that was trained from scratch"
    )
    parser.add_argument(
        "--digest",
        metavar="HEX",
        help="digest of the configuration (`ligr launch` gives it): another release, whose "
        "defaults differ, then refuses to train",
    )
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="e.g. model.depth=4")


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.parallel.peers import ending_together
    from ligr_jax.parallel.processes import join_processes

    use_all_cores()
    join_processes()
    with ending_together():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ligr_jax.config import digest, flatten, value_text
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.parallel.processes import is_first
    from ligr_jax.scaling.ladder import configure

    preset = [f"preset={args.preset}"] if args.preset else []
    manifest, common = load_manifest(args.data), [*preset, *_warm(args), *args.assignments]
    if args.together:
        from ligr_jax.train.vmapped import train_vmapped

        runs = _read_group(args.together)
        configs = [configure(manifest, args.data, [*common, *run.assignments]) for run in runs]
        for run, config in zip(runs, configs):
            _require_digest(run.digest, config)
        for summary in train_vmapped(configs, [run.out for run in runs]):
            _show(summary, configs[0], f"{summary['run']}  ")
        return 0
    config = configure(manifest, args.data, common)
    _require_digest(args.digest, config)
    if args.show:
        for name, value in flatten(config).items():
            print(f"{name}={value_text(value)}")
        return 0
    if args.plan:
        print("\n".join(_plan_lines(config)))
        return 0
    from ligr_jax.train.loop import train

    summary = train(config, args.out or args.runs / digest(config))
    if is_first():
        _show(summary, config)
    return 0


def _plan_lines(config: "Config") -> list[str]:
    """Return the placement of the tables, and the speeds of devices and input."""
    from ligr_jax.data.pipeline import plan_for
    from ligr_jax.data.records import Records
    from ligr_jax.parallel.processes import processes_of_host
    from ligr_jax.train.feed import measure_feed
    from ligr_jax.train.program import Program

    program = Program(config)
    records = Records(config.data.dir, config.data.edges)
    plan = plan_for(records, config, "train")
    if not len(plan):
        return program.plan.lines()
    devices = program.process.devices
    feed = measure_feed(records, plan, config, devices, processes_of_host())
    return [*program.plan.lines(), feed.line()]


def _warm(args: argparse.Namespace) -> list[str]:
    from ligr_jax.config import ConfigError
    from ligr_jax.train.incremental import warm_assignments

    if args.cold_weights and not args.warm_start:
        raise ConfigError("--cold-weights needs --warm-start, the run to start from")
    return warm_assignments(args.warm_start, args.cold_weights) if args.warm_start else []


def _show(summary: dict[str, Any], config: "Config", name: str = "") -> None:
    from ligr_jax.commands.eval import left_out_lines, number_words, split_lines

    for split in config.eval.splits:
        if f"{split}/ne" in summary:
            shown = [summary[f"{split}/{m}"] for m in ("ne", "auc")]
            ne, auc = map(number_words, shown)
            print(f"{name}{split}: NE {ne}  AUC {auc}")
            for line in left_out_lines(summary, split):
                print(f"{name}{line}")
    for line in split_lines(summary):
        print(f"{name}{line}")


def _require_digest(requested: str | None, config: "Config") -> None:
    """Refuse to train a configuration that is not the one that was launched."""
    from ligr_jax.config import ConfigError, digest

    if requested and digest(config) != requested:
        raise ConfigError(
            f"the configuration has the digest {digest(config)}, and it was launched as "
            f"{requested}: the data or the release of ligr_jax differ from those of `ligr launch`; "
            "use the same, or launch the sweep again"
        )


class _Run(NamedTuple):
    """A run of a `--together` list; see `add_arguments`."""

    out: Path
    assignments: list[str]
    digest: str | None


def _read_group(text: str) -> list[_Run]:
    """Return the runs of `--together`: a JSON list, or the path of a file that has one."""
    from ligr_jax.atomic import read_text
    from ligr_jax.config import ConfigError
    from ligr_jax.places import require_supported
    from ligr_jax.store.mirror import local_path
    from ligr_jax.store.stage import stage_file

    is_list = text.lstrip().startswith("[")
    path = "--together" if is_list else text
    if not is_list:
        stage_file(Path(text))
    try:
        entries = json.loads(text if is_list else read_text(Path(text)))
    except json.JSONDecodeError as e:
        raise ConfigError(f"{path}: not JSON ({e}); `ligr train --help` shows one") from e
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: not a list of runs; `ligr train --help` shows one")
    runs = list[_Run]()
    for number, entry in enumerate(entries, 1):
        named = isinstance(entry, dict) and isinstance(entry.get("out"), str)
        given = entry.get("assignments") if named else None
        if not isinstance(given, list) or not all(isinstance(a, str) for a in given):
            raise ConfigError(
                f'{path}: entry {number} is {entry!r}; write {{"out": "DIR", '
                '"assignments": ["name=value", ...]}'
            )
        require_supported(entry["out"])
        runs.append(_Run(local_path(entry["out"]), given, entry.get("digest")))
    return runs
