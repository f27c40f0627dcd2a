"""Create a W&B workspace with the report's panels, and upload the fits and figures of a report.

With --runs, panels are created for the actions, cold-start slices and swept parameters of its runs,
and its report (`ligr report`) is uploaded as one run of type "report". With --out, the workspace is
written to a file and no server is needed. Every call saves a new view.

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
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the workspace to a file instead of a server"
    )


def run(args: argparse.Namespace) -> int:
    """Save the workspace on W&B's server, or write it to a file, and print where it is."""
    from ligr_jax.atomic import make_directory, write_atomically
    from ligr_jax.data.schema import BadInput

    try:
        from ligr_jax.scaling import dashboard, dashboard_upload
    except ModuleNotFoundError as e:
        raise BadInput(f"no module {e.name}: pip install 'ligr-jax[dashboard]'") from e
    from ligr_jax.runs.table import read_runs
    from ligr_jax.runs.wandb_server import has_key, is_reachable, server_url

    contents = dashboard.Contents()
    if args.runs:
        contents = dashboard.contents(read_runs(args.runs), args.runs)
    workspace = dashboard.workspace(args.entity, args.project, contents)
    if args.out:
        make_directory(args.out.parent)
        write_atomically(args.out, dashboard.workspace_json(workspace))
        print(f"{args.out}: the workspace as W&B stores it (`spec` of an upsertView of its API)")
        return 0
    url = server_url()
    if not has_key(url):
        raise dashboard_upload.ServerError(
            f"there is no key for the W&B server {url}: run `wandb login` or set WANDB_API_KEY, or "
            "write the workspace to a file with --out FILE"
        )
    if not is_reachable(url):
        raise dashboard_upload.ServerError(
            f"the W&B server {url} does not answer: check WANDB_BASE_URL and the network, or write "
            "the workspace to a file with --out FILE"
        )
    if args.runs:
        print(f"report: {dashboard_upload.upload_report(args.runs, args.entity, args.project)}")
    print(f"workspace: {dashboard_upload.save_workspace(workspace)}")
    return 0
