"""Make a W&B workspace with the report's panels, and upload the fits and figures of a report.

With --runs, panels are made for the actions, cold-start slices and swept parameters its runs have,
and its report (`ligr report`) is uploaded as one run of type "report". Without a key, a server that
answers, or with --out, the workspace is written to a file instead. Every call saves a new view.

examples:
  ligr dashboard --entity me --project ligr                      panels that any run can fill
  ligr dashboard --entity me --project ligr --runs runs/demo     and those of this sweep
  ligr dashboard --entity me --project ligr --runs runs/demo --out dashboard.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", required=True, help="W&B project of the runs")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="a sweep's directory")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here, ask no server")


def run(args: argparse.Namespace) -> int:
    """Saves the workspace, or writes it, and says where it is."""
    from ligr_jax.atomic import make_directory, write_atomically
    from ligr_jax.data.schema import BadInput

    try:
        from ligr_jax.scaling.dashboard import Contents, contents, to_json, upload_report, workspace
    except ModuleNotFoundError as e:
        raise BadInput(f"no module {e.name}: pip install 'ligr-jax[dashboard]'") from e
    from ligr_jax.scaling.runs import read_runs
    from ligr_jax.train.wandb_server import address, answers, has_key

    shown = contents(read_runs(args.runs), args.runs) if args.runs else Contents()
    made = workspace(args.entity, args.project, shown)
    url = address()
    if not args.out and has_key(url) and answers(url):
        if args.runs:
            print(f"report: {upload_report(args.runs, args.entity, args.project)}")
        made.save()
        print(f"workspace: {made.url}")
        return 0
    out = args.out or Path("dashboard.json")
    make_directory(out.parent)
    write_atomically(out, to_json(made))
    print(f"{out}: the workspace as W&B stores it (an upsertView of its API takes `spec`)")
    if not args.out:
        lack = "does not answer" if has_key(url) else "has no key here (`wandb login`)"
        print(f"{url} {lack}; then run this command again to save it there")
    return 0
