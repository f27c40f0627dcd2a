"""Arguments of the sub-commands: a parser that shows an example, and types of bounded numbers."""

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn

LARGEST = 2**31 - 1


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
