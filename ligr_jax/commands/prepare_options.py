"""Sessions, splits and protocol of `ligr prepare`, from its arguments."""

import argparse

from ligr_jax.commands.arguments import positive_int
from ligr_jax.data.prepare.options import (
    PrepareOptions,
    parse_duration,
    parse_fractions,
    parse_spans,
    parse_time,
)
from ligr_jax.data.prepare.splits import SplitSpans, SplitTimes
from ligr_jax.data.protocols.protocol import Protocol
from ligr_jax.data.protocols.registry import PROTOCOLS
from ligr_jax.data.schema import BadInput

CONTEXT_BLOCK = 10
_SPLITS = ("train_until", "validation_until", "test_until", "last", "fractions", "leave_one_out")
_COLUMNS = ("actions", "late", "categorical", "bag", "numeric", "vector", "outcome", "weight")


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for sessions, splits and the protocol."""
    add = parser.add_argument
    add(
        "--session-gap",
        metavar="TIME",
        help="pause that ends a session, e.g. 6h [30m]",
    )
    add(
        "--train-on-context",
        action="store_true",
        help="train on untimed earlier rows (KuaiRand's history file); their unknown labels are "
        "masked",
    )
    add(
        "--context-block",
        metavar="N",
        type=positive_int,
        help="untimed rows of a session with --train-on-context; a row sees the actions of earlier "
        f"sessions only [{CONTEXT_BLOCK}]",
    )
    add(
        "--protocol",
        metavar="NAME",
        help="splits, sessions and columns of a public data set that have a name, for comparable "
        f"results (`ligr sources DATASET` shows them): {', '.join(PROTOCOLS)}",
    )
    splits = parser.add_argument_group("splits, by time (ISO dates, UTC without a zone, or ms)")
    splits.add_argument("--train-until", metavar="T")
    splits.add_argument("--validation-until", metavar="T")
    splits.add_argument("--test-until", metavar="T", help="later rows are dropped")
    splits.add_argument(
        "--fractions", metavar="F,F,F", help="shares of rows instead of times [0.8,0.1,0.1]"
    )
    splits.add_argument(
        "--leave-one-out",
        action="store_true",
        help="the last impression of a member is test, the one before it validation (not by time)",
    )
    splits.add_argument(
        "--last", metavar="TIME,TIME", help="lengths of validation and test at the end, e.g. 1d,1d"
    )


def prepare_options(args: argparse.Namespace, protocol: Protocol | None) -> PrepareOptions:
    """Return the options of `prepare`.

    Args:
        args: arguments of `ligr prepare`.
        protocol: the protocol of `--protocol`.

    Raises:
        BadInput: an argument is invalid, or contradicts another one or the protocol.
    """
    options = PrepareOptions(
        session_gap_ms=parse_duration(args.session_gap or "30m"),
        context_block=_context_block(args),
        splits=_splits(args),
        fractions=_fractions(args),
        leave_one_out=args.leave_one_out,
        on_bad_row=args.on_bad_row,
        shard_rows=args.shard_rows,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    if protocol is None:
        return options
    fixed = protocol.options(options)
    _refuse_contradiction(args, protocol, options, fixed)
    return fixed


def _refuse_contradiction(
    args: argparse.Namespace, protocol: Protocol, given: PrepareOptions, fixed: PrepareOptions
) -> None:
    """Raise `BadInput` for an argument that differs from a rule of the protocol."""
    same_splits = given.splits == fixed.splits and given.fractions == fixed.fractions
    same_gap = given.session_gap_ms == fixed.session_gap_ms
    same_shards = args.shard_rows == PrepareOptions.shard_rows
    rules = {
        **dict.fromkeys(_SPLITS, (same_splits, f"has the splits: {protocol.split_rule}")),
        **dict.fromkeys(_COLUMNS, (False, f"has the columns of {protocol.adapter}")),
        "format": (args.format in ("auto", protocol.adapter), f"is for {protocol.adapter}"),
        "train_on_context": (protocol.context, "leaves out earlier impressions without times"),
        "session_gap": (same_gap, f"has the session gap {protocol.session_gap}"),
        "shard_rows": (same_shards, f"has shards of {PrepareOptions.shard_rows:,} rows"),
    }
    for name, (agrees, rule) in rules.items():
        value = getattr(args, name)
        if value and not agrees:
            given_as = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise BadInput(
                f"{given_as} contradicts --protocol {protocol.name}, which "
                f"{rule}; leave out one of the two"
            )


def _splits(args: argparse.Namespace) -> SplitTimes | SplitSpans | None:
    times = [args.train_until, args.validation_until, args.test_until]
    rules = [times != [None] * 3, bool(args.last), bool(args.fractions)]
    if sum(rules) > 1 or (rules[0] and None in times[:2]):
        raise BadInput(
            "give both --train-until and --validation-until (equal times leave validation empty), "
            "or only --last, or only --fractions"
        )
    if args.last:
        return parse_spans(args.last)
    if not rules[0]:
        return None
    end = None if args.test_until is None else parse_time(args.test_until)
    return SplitTimes(parse_time(args.train_until), parse_time(args.validation_until), end)


def _fractions(args: argparse.Namespace) -> tuple[float, float, float]:
    if not args.leave_one_out:
        return parse_fractions(args.fractions or "0.8,0.1,0.1")
    if args.fractions or args.last or args.train_until or args.validation_until or args.test_until:
        raise BadInput("--leave-one-out defines the splits; give no split times and no --fractions")
    return 1.0, 0.0, 0.0


def _context_block(args: argparse.Namespace) -> int | None:
    if args.context_block is not None and not args.train_on_context:
        raise BadInput(
            f"--context-block {args.context_block} has no effect without --train-on-context"
        )
    return (args.context_block or CONTEXT_BLOCK) if args.train_on_context else None
