"""Generate a synthetic log of a feed whose true action probabilities are known.

A seed gives the same bytes for any number of workers. The log contains the true probability of each
action, so that an evaluation shows how far a model is from the best possible one.

examples:
  ligr world --out data/world/log --members 20000
  ligr world --out data/small/log --members 2000 --items 5000 --seed 7
  ligr world --out data/long/log --members 5000 --sessions 80 --random-share 0.3
"""

import argparse
import logging
from pathlib import Path

from ligr_jax.commands.arguments import number, positive_int, whole_number
from ligr_jax.data.world.generate import WorldConfig, generate_world
from ligr_jax.progress import log_progress

_log = logging.getLogger(__name__)

NUMBERS = {int: whole_number(-(2**63), 2**63 - 1), float: number}
SETTINGS = {
    "members": "number of members",
    "seed": "seed of the world",
    "items": "number of items, old and new",
    "days": "days that the log covers",
    "sessions": "mean number of sessions of a member in the log",
    "random_share": "share of impressions that a random policy showed",
    "content_width": "width of the content vectors of items",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = WorldConfig()
    parser.add_argument("--out", required=True, type=Path, help="directory of the log")
    parser.add_argument(
        "--workers", type=positive_int, default=None, help="processes (default: all cores)"
    )
    for name, what in SETTINGS.items():
        value = getattr(default, name)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, type=NUMBERS[type(value)], default=value, help=f"{what} (default {value})"
        )


def run(args: argparse.Namespace) -> None:
    settings = {name: getattr(args, name) for name in SETTINGS}
    config = WorldConfig(**settings)
    generate_world(config, args.out, args.workers, log_progress(_log, "block of members"))
    print(
        f"{args.out}: a log of {config.members:,} members; next: ligr prepare {args.out} --out DIR"
    )
