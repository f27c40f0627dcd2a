"""`ligr`: from an impression log to a scaling law, one sub-command a step."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from ligr_jax.errors import LigrError
from ligr_jax.parallel.host import use_fast_allocator

COMMANDS = {
    "world": "make a synthetic log whose true probabilities are known",
    "prepare": "turn a log (Parquet, CSV, KuaiRand, MovieLens) into shards for training",
    "train": "train one model, resuming where it was interrupted",
    "eval": "measure a trained run on a split",
    "sweep": "train every point of a sweep file",
    "fit": "fit a scaling law to finished runs",
    "plan": "say what to train next for a compute budget",
    "sid": "learn semantic ids from item vectors, write them, look at them",
    "export": "write a run's tables for serving, in 32, 8 or 4 bits",
    "report": "draw a page and figures of a sweep",
    "dashboard": "make the report's panels in W&B, and upload its fits",
}

# Commands that run a model, started with care for its speed.
STEPPING = ("train", "eval", "sweep", "sid")

OVERVIEW = """\
from an impression log to a scaling law:

  ligr world   --out data/world/log --members 20000 --seed 0
  ligr prepare data/world/log --out data/world/prepared
  ligr train   --data data/world/prepared --out runs/first model.depth=4 data.seq_len=256
  ligr eval    runs/first --split test
  ligr export  runs/first --out exports/first --bits 8
  ligr sweep   sweeps/tiny/ladder.yaml --data data/world/prepared --out runs/demo
  ligr report  runs/demo
  ligr plan    --runs runs/demo --flops 1e13

commands:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `ligr COMMAND ...`; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        table = "".join(f"  {name:11}{what}\n" for name, what in COMMANDS.items())
        asked = not words or words[0] in ("-h", "--help", "help")
        print(f"usage: ligr COMMAND ...\n\n{OVERVIEW}{table}\n`ligr COMMAND --help` has examples.")
        if not asked:
            print(f"\nligr: no command '{words[0]}'", file=sys.stderr)
        return 0 if asked else 2
    if argv is None and words[0] in STEPPING and "--help" not in words:
        use_fast_allocator()
    # Imported here: `ligr --help` costs nothing, and `ligr fit` never starts JAX.
    command = importlib.import_module(f"ligr_jax.commands.{words[0]}")
    parser = argparse.ArgumentParser(
        prog=f"ligr {words[0]}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    # argparse cannot mix options into the arguments of a command that has parts.
    has_parts = getattr(command, "HAS_PARTS", False)
    args = (parser.parse_args if has_parts else parser.parse_intermixed_args)(words[1:])
    try:
        return int(command.run(args) or 0)
    except LigrError as e:
        print(f"ligr {words[0]}: {e}", file=sys.stderr)
        return e.exit_status
    except OSError as e:
        if e.filename is None:  # no file of the user's: a bug
            raise
        print(f"ligr {words[0]}: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
