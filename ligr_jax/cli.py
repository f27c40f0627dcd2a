"""The command line `ligr`: one sub-command for each step from a log to a scaling law."""

import os
import sys
from collections.abc import Sequence

from ligr_jax.errors import words_of
from ligr_jax.exit_status import DONE, FAILED, INTERRUPTED, TABLE, USAGE
from ligr_jax.messages import end_line, show_messages
from ligr_jax.stop import StopRequest, block_signals, listen, unblock_signals

# In the usual order of use.
COMMANDS = {
    "world": "generate a synthetic log whose true probabilities are known",
    "sources": "show the public data sets that prepare reads",
    "download": "download and unpack a public data set",
    "prepare": "convert a log (Parquet, CSV, KuaiRand, MovieLens) to training data",
    "train": "train one model, or continue an interrupted run",
    "eval": "measure a trained run on a split",
    "predict": "write the predictions of a run for a split to a Parquet file",
    "export": "write a run as an artifact that scores requests without its model's code",
    "check": "test an artifact: files, expiry, scores of golden requests, metrics of a split",
    "store": "build and compact activity stores, the histories that serving reads",
    "serve": "answer requests over HTTP with an artifact and an activity store",
    "sweep": "train every point of a sweep",
    "launch": "train every point of a sweep on SLURM, Kubernetes or SkyPilot",
    "status": "show which points of a sweep wait, run, failed or finished",
    "report": "write a page with figures and laws of a sweep",
    "fit": "fit a scaling law to finished runs",
    "plan": "plan the next run for a compute budget",
    "sid": "learn, measure and attach semantic ids",
    "verify": "compare data, runs and exports with their digests",
    "dashboard": "create a W&B workspace with the panels of the report",
}

# Commands that run a model: they restart with a fast memory allocator.
STEPPING = ("train", "eval", "predict", "check", "serve", "sid")
# Commands whose only result is their output: a full disk is an error.
PRINTING = ("check", "eval", "fit", "plan", "status", "verify")
# Commands that finish or save their work when a signal stops them.
SAVING = (("train",), ("serve",), ("sweep",), ("sid", "train"))
# Seconds until a signal ends this process if the processes of its run have not joined.
_JOIN_S = 10.0

QUIET = "--quiet"

OVERVIEW = """\
usage: ligr COMMAND ...

commands, in the usual order of use:
{commands}
an example, from a synthetic log to a law and the next run:
  ligr world   --out data/world/log --members 20000 --seed 0
  ligr prepare data/world/log --out data/world/prepared
  ligr train   --data data/world/prepared --out runs/first model.depth=4 data.seq_len=256
  ligr eval    runs/first --split test
  ligr predict runs/first --split test --out predictions.parquet
  ligr export  runs/first --out exports/first --bits 8
  ligr check   exports/first
  ligr store   build data/world/prepared --out stores/world
  ligr serve   exports/first --store stores/world
  ligr sweep   tiny/ladder --data data/world/prepared --out runs/demo
  ligr report  runs/demo
  ligr plan    --runs runs/demo --flops 1e13

Results are printed on standard output, progress and messages on standard error; --quiet prints
only warnings and errors. `ligr COMMAND --help` explains a command with examples, and
`ligr --version` prints the versions.

{statuses}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ligr COMMAND ...`.

    Args:
        argv: words after `ligr`; None: those of this process, which then listens for signals.

    Returns:
        The exit status.
    """
    if argv is not None:
        undo = show_messages(_is_quiet(argv))
        try:
            return _run(list(argv), StopRequest())
        finally:
            undo()
    block_signals()  # until there are handlers, also across the exec below
    from ligr_jax.console import make_output_safe
    from ligr_jax.parallel.cluster import expects_peers

    output_lost = make_output_safe()
    words = sys.argv[1:]
    show_messages(_is_quiet(words))
    if words and words[0] in STEPPING and "--help" not in words:
        from ligr_jax.parallel.host import use_fast_allocator

        use_fast_allocator()
    saves = any(tuple(words[: len(start)]) == start for start in SAVING)
    stop = listen(words[0] if words else "", saves)
    if words[:1] == ["train"] and expects_peers(os.environ):
        stop.postpone(_JOIN_S)  # the processes stop together once they have joined
    status = _run(words, stop)
    stop.done = True  # from here on a signal changes nothing
    if status == DONE and words and (words[0] in PRINTING or "--show" in words) and output_lost():
        print(f"ligr {words[0]}: the disk of its output is full; make room", file=sys.stderr)
        return FAILED
    return status


def _run(words: list[str], stop: StopRequest) -> int:
    """Run a command.

    Args:
        words: the command and its arguments.
        stop: tells whether a signal asked this process to stop.
    """
    try:
        unblock_signals()
        return _dispatch(words)
    except SystemExit:
        raise
    except BaseException as e:
        # A library may have replaced the exception of the signal by its own.
        interrupted = stop.interrupted or (e if isinstance(e, KeyboardInterrupt) else None)
        if interrupted is None:
            raise
        end_line()
        print(f"ligr {words[0]}: stopped by {stop.interrupted or 'SIGINT'}", file=sys.stderr)
        return getattr(interrupted, "exit_status", INTERRUPTED)


def _dispatch(words: list[str]) -> int:
    import argparse
    import importlib

    from ligr_jax.commands.arguments import Parser
    from ligr_jax.places import local_words
    from ligr_jax.store.mirror import with_uris

    if not words or words[0] in ("-h", "--help", "help"):
        commands = "".join(f"  {name:11}{what}\n" for name, what in COMMANDS.items())
        print(OVERVIEW.format(commands=commands, statuses=TABLE), end="")
        return DONE
    if words[0] in ("-V", "--version", "version"):
        print(_version())
        return DONE
    if words[0] not in COMMANDS:
        print(f"ligr: no command '{words[0]}'{_nearest(words[0])}", file=sys.stderr)
        return USAGE
    # Imported here, so that `ligr --help` is fast and `ligr fit` does not import JAX.
    command = importlib.import_module(f"ligr_jax.commands.{words[0]}")
    parser = Parser(
        prog=f"ligr {words[0]}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.add_quiet()
    # argparse cannot parse options between the arguments of a command that has parts.
    has_parts = getattr(command, "HAS_PARTS", False)
    parse = parser.parse_args if has_parts else parser.parse_intermixed_args
    try:
        args = parse(local_words(words[0], words[1:]))
        return int(command.run(args) or 0)
    except Exception as e:
        message = words_of(e)
        if message is None:  # a bug
            raise
        end_line()
        print(f"ligr {words[0]}: {with_uris(message[1])}", file=sys.stderr)
        return message[0]


def _is_quiet(words: Sequence[str]) -> bool:
    """Whether `--quiet` is given; messages are shown before a command parses its arguments."""
    return any(word == "-q" or (len(word) > 2 and QUIET.startswith(word)) for word in words)


def _version() -> str:
    import platform
    from importlib.metadata import version

    from ligr_jax import __version__

    return f"ligr {__version__} (JAX {version('jax')}, Python {platform.python_version()})"


def _nearest(word: str) -> str:
    """Return a hint with the nearest commands."""
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, 2, 0.5)
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{meant} `ligr --help` lists the commands"


if __name__ == "__main__":
    sys.exit(main())
