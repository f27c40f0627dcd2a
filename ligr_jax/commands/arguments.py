"""Arguments of the sub-commands: a parser that shows an example, and types of bounded numbers."""

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn

from ligr_jax.errors import UsageError

LARGEST = 2**31 - 1
DEFAULT_METRIC = "validation/ne"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors show the first example of the command."""

    def add_quiet(self) -> None:
        """Add `--quiet` to this command and its parts; `ligr_jax.cli` acts on it."""
        self.add_argument(
            "-q", "--quiet", action="store_true", help="print only warnings and errors"
        )
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for part in action.choices.values():
                    part.add_quiet()

    def error(self, message: str) -> NoReturn:
        # argparse names a list that may be empty among the missing arguments.
        for action in self._actions:
            if action.nargs == "*" and action.metavar:
                message = message.replace(f", {action.metavar}", "")
        example = re.search(
            r"^examples?:\n +(ligr .*?)(?:   .*)?$", self.description or "", re.MULTILINE
        )
        if example and not message.endswith("\n"):
            message += f"\nexample: {example[1]}\n`{self.prog} --help` has more"
        super().error(message)


def whole_number(low: int, high: int = LARGEST) -> Callable[[str], int]:
    """Return the type of an argument: a whole number from `low` to `high`; 1e6 is one."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = _whole(text)
        if not low <= value <= high:
            bound = f"from {low:,} to {high:,}" if high < LARGEST else f"of at least {low:,}"
            raise argparse.ArgumentTypeError(f"{text}: give a whole number {bound}")
        return value

    return parse


def _whole(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number")
    return int(value)


positive_int = whole_number(1)
count = whole_number(0)


def number(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: give a number")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return value


def share(text: str) -> float:
    """Parse a number above 0 and up to 1."""
    value = positive_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text}: give a share above 0 and up to 1")
    return value


def add_metric(parser: argparse.ArgumentParser) -> None:
    """Add `--metric`, `--loss`, `--lower` and `--higher`: a metric and its direction."""
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--metric",
        default=DEFAULT_METRIC,
        metavar="COL",
        help="column of the metric (%(default)s); its name says which direction is better",
    )
    names.add_argument(
        "--loss",
        metavar="COL",
        help="column of a metric of which less is better, whatever its name",
    )
    directions = parser.add_mutually_exclusive_group()
    directions.add_argument("--lower", action="store_true", help="less of the metric is better")
    directions.add_argument("--higher", action="store_true", help="more of the metric is better")


def direction_of(args: argparse.Namespace, needed: bool = True) -> bool:
    """Return whether less of the metric is better; set `args.metric` to the column of `--loss`.

    Args:
        args: the parsed arguments of `add_metric`.
        needed: refuse a metric of unknown direction; else it counts as higher-is-better.

    Raises:
        UsageError: `--loss` and `--higher` contradict each other.
        BadInput: neither the options nor the name of the metric say it.
    """
    from ligr_jax.scaling.direction import direction

    if args.loss is not None:
        if args.higher:
            raise UsageError(
                f"--loss {args.loss} is lower-is-better: give --metric {args.loss} --higher"
            )
        args.metric = args.loss
        return True
    if not needed:
        return bool(args.lower)
    return direction(args.metric, lower=args.lower, higher=args.higher)
