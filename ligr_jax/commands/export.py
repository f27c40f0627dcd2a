"""Write a trained run as an artifact that scores requests without the code of its model.

An artifact has the embedding tables (in 32, 8 or 4 bits, from which single rows can be read), the
dense parameters, the functions of the model (StableHLO for CPU, CUDA and TPU), the schema of the
data, and golden requests with their scores. Each export adds DIR/versions/NAME and then names it in
DIR/current.json, which is replaced atomically: a service switches to the new version, and after a
crash the former version is still the current one. The newest --keep versions are kept.

With 8 or 4 bits, the output has the largest movement of a logit of the golden requests, and its
bound, which follows from the quantization step and the gradients of the logit.

The functions run with versions of JAX up to six months newer than that of the export. Later,
loading the artifact is refused: export the run again. `ligr check DIR` tests an artifact.

examples:
  ligr export runs/first --out exports/first                    float32
  ligr export runs/first --out exports/first --bits 8           the next version, row-wise 8 bits
  ligr export runs/first --out exports/first --set-top 20 --weights click=1,like=5 --candidates 2048
  ligr export runs/first --out exports/first --data /elsewhere/prepared

scoring:
  from ligr_jax.serve import load_artifact
  artifact = load_artifact("exports/first")
  artifact.rank(artifact.encode(histories), candidates)

rows of a table of the current version:
  from ligr_jax.tables.exported import ExportedTable
  ExportedTable.open("exports/first", "item_id").rows([3, 14159])      float32 [2, E]
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.commands.arguments import count, number, positive_int, whole_number
from ligr_jax.errors import UsageError
from ligr_jax.exit_status import DONE

if TYPE_CHECKING:
    from ligr_jax.serve.manifest import ArtifactManifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument(
        "--out", metavar="DIR", required=True, type=Path, help="directory of the artifact"
    )
    parser.add_argument(
        "--bits", type=whole_number(4, 32), default=32, choices=(32, 8, 4), help="of a value [32]"
    )
    parser.add_argument(
        "--keep", type=whole_number(3), default=3, help="number of versions to keep [3]"
    )
    parser.add_argument(
        "--candidates",
        type=positive_int,
        default=512,
        help="largest number of candidates of a request [512]",
    )
    parser.add_argument(
        "--set-top",
        type=count,
        default=10,
        metavar="K",
        help="candidates that the set-wise layers see, the best by point-wise score [10]",
    )
    parser.add_argument(
        "--weights",
        type=action_weights,
        default={},
        metavar="ACTION=W,...",
        help="weight of each action's probability in the score that ranks (default: all 1)",
    )
    parser.add_argument(
        "--position",
        type=positive_int,
        default=1,
        metavar="B",
        help="bucket of the post feature whose scores are served by default [1]",
    )
    parser.add_argument(
        "--data", type=Path, help="prepared data (default: the directory of the training)"
    )
    parser.add_argument("--step", type=count, help="step of the checkpoint (default: the newest)")
    parser.add_argument(
        "assignments", nargs="*", metavar="mesh.name=value", help="e.g. mesh.model=4"
    )


def action_weights(text: str) -> dict[str, float]:
    """Parse `click=1,like=5`."""
    weights = {}
    for part in text.split(","):
        action, separator, value = part.rpartition("=")
        if not separator or not action or action in weights:
            raise argparse.ArgumentTypeError(f"{text}: give ACTION=WEIGHT,ACTION=WEIGHT")
        weights[action] = number(value)
    return weights


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.parallel.peers import ending_together
    from ligr_jax.parallel.processes import join_processes

    use_all_cores()
    join_processes()
    with ending_together():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ligr_jax.config import ScoringConfig
    from ligr_jax.parallel.processes import is_first
    from ligr_jax.runs.directory import load_config
    from ligr_jax.serve.manifest import read_manifest
    from ligr_jax.serve.write import ExportOptions, export_artifact
    from ligr_jax.store.mirror import with_uris
    from ligr_jax.tables.versions import version_directory

    actions = load_config(args.run).model.actions
    options = ExportOptions(
        bits=args.bits,
        keep=args.keep,
        candidates=args.candidates,
        scoring=ScoringConfig(
            set_top=args.set_top,
            weights=_ordered(args.weights, actions),
            position=args.position,
        ),
    )
    name = export_artifact(args.run, args.out, options, args.data, args.assignments, args.step)
    if not is_first():
        return DONE
    version = version_directory(args.out, name)
    print(with_uris(f"{version}: step {int(name.split('-')[0]):,}, {args.bits} bits"))
    print(_words(read_manifest(version)))
    return DONE


def _ordered(weights: dict[str, float], actions: tuple[str, ...]) -> tuple[float, ...]:
    """Return the weights in the order of the actions; () if there are none."""
    unknown = sorted(weights.keys() - set(actions))
    if unknown:
        raise UsageError(
            f"--weights: the run has no action {unknown[0]!r}; it has {', '.join(actions)}"
        )
    return tuple(weights.get(action, 0.0) for action in actions) if weights else ()


def _words(manifest: "ArtifactManifest") -> str:
    golden = manifest.golden
    from_model = max(golden["difference_from_model"].values())
    lines = [
        _table(manifest.tables),
        f"{sum(map(len, manifest.functions.values()))} functions for "
        f"{', '.join(manifest.platforms)}; expires {manifest.expires[:10]}",
        f"{golden['requests']} golden requests: largest difference from the model {from_model:.3g}",
    ]
    if "quantization" in golden:
        q = golden["quantization"]
        lines.append(
            f"{manifest.bits} bits move a logit of these requests by up to {q['measured']:.3g}; "
            f"the bound of this logit is {q['bound']:.3g}"
        )
    return "\n".join(lines)


def _table(tables: Any) -> str:
    columns = ("rows", "width", "bytes before", "bytes after", "saved", "RMSE")
    lines = [f"{'table':20}" + "".join(f"{c:>14}" for c in columns)]
    for name, about in tables.items():
        before, after = 4 * about["rows"] * about["width"], about["bytes"]
        lines.append(
            f"{name:20}{about['rows']:14,}{about['width']:14,}{before:14,}{after:14,}"
            f"{1 - after / before:14.1%}{about['rmse']:14.3g}"
        )
    return "\n".join(lines)
