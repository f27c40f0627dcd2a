"""`ligr`: from an impression log to a scaling law, one sub-command a step."""

import os
import sys
from collections.abc import Sequence

from ligr_jax.errors import words_of
from ligr_jax.exit_status import DONE, FAILED, INTERRUPTED, TABLE, USAGE
from ligr_jax.messages import show_messages
from ligr_jax.stop import StopRequest, block_signals, listen, unblock_signals

COMMANDS = {
    "world": "make a synthetic log whose true probabilities are known",
    "prepare": "turn a log (Parquet, CSV, KuaiRand, MovieLens) into shards for training",
    "train": "train one model, resuming where it was interrupted",
    "eval": "measure a trained run on a split",
    "predict": "write a run's predictions for a split to a Parquet file",
    "sweep": "train every point of a sweep file",
    "fit": "fit a scaling law to finished runs",
    "plan": "say what to train next for a compute budget",
    "sid": "learn semantic ids from item vectors, write them, look at them",
    "export": "write a run's tables for serving, in 32, 8 or 4 bits",
    "report": "draw a page and figures of a sweep",
    "verify": "check data, runs and exports against their digests",
    "dashboard": "make the report's panels in W&B, and upload its fits",
}

# Commands that run a model, started with care for its speed.
STEPPING = ("train", "eval", "predict", "sid")
# Commands whose result is what they print.
PRINTING = ("eval", "fit", "plan", "verify")
# Commands that save their work when a signal stops them.
SAVING = (("train",), ("sweep",), ("sid", "train"))
# A signal that comes before the processes of a run have joined ends this one after so many seconds.
_JOIN_S = 10.0

QUIET = "--quiet"

OVERVIEW = """\
from an impression log to a scaling law:

  ligr world   --out data/world/log --members 20000 --seed 0
  ligr prepare data/world/log --out data/world/prepared
  ligr train   --data data/world/prepared --out runs/first model.depth=4 data.seq_len=256
  ligr eval    runs/first --split test
  ligr predict runs/first --out predictions.parquet
  ligr export  runs/first --out exports/first --bits 8
  ligr sweep   tiny/ladder --data data/world/prepared --out runs/demo
  ligr report  runs/demo
  ligr plan    --runs runs/demo --flops 1e13

commands:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ligr COMMAND ...`; return the exit status."""
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
        stop.postpone(_JOIN_S)  # until this process has peers to say it to
    status = _run(words, stop)
    stop.done = True  # Python needs a moment to end
    if status == DONE and words and (words[0] in PRINTING or "--show" in words) and output_lost():
        print(f"ligr {words[0]}: the disk of its output is full; make room", file=sys.stderr)
        return FAILED
    return status


def _run(words: list[str], stop: StopRequest) -> int:
    """Run a command; `stop` says whether a signal asked this process to end."""
    try:
        unblock_signals()
        return _dispatch(words)
    except SystemExit:
        raise
    except BaseException as e:
        # Libraries turn the exception of a signal into exceptions of their own.
        interrupted = stop.interrupted or (e if isinstance(e, KeyboardInterrupt) else None)
        if interrupted is None:
            raise
        print(f"ligr {words[0]}: stopped by {stop.interrupted or 'SIGINT'}", file=sys.stderr)
        return getattr(interrupted, "exit_status", INTERRUPTED)


def _dispatch(words: list[str]) -> int:
    import argparse
    import importlib

    from ligr_jax.commands.arguments import Parser
    from ligr_jax.places import require_local_words

    if not words or words[0] in ("-h", "--help", "help"):
        table = "".join(f"  {name:11}{what}\n" for name, what in COMMANDS.items())
        examples = "`ligr COMMAND --help` has examples."
        print(f"usage: ligr COMMAND ...\n\n{OVERVIEW}{table}\n{TABLE}\n{examples}")
        return DONE
    if words[0] in ("-V", "--version", "version"):
        print(_version())
        return DONE
    if words[0] not in COMMANDS:
        print(f"ligr: no command '{words[0]}'{_nearest(words[0])}", file=sys.stderr)
        return USAGE
    # Imported here: `ligr --help` costs nothing, and `ligr fit` never starts JAX.
    command = importlib.import_module(f"ligr_jax.commands.{words[0]}")
    parser = Parser(
        prog=f"ligr {words[0]}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.add_quiet()
    # argparse cannot mix options into the arguments of a command that has parts.
    has_parts = getattr(command, "HAS_PARTS", False)
    parse = parser.parse_args if has_parts else parser.parse_intermixed_args
    try:
        require_local_words(words[1:])
        args = parse(words[1:])
        return int(command.run(args) or 0)
    except Exception as e:
        message = words_of(e)
        if message is None:  # a bug
            raise
        print(f"ligr {words[0]}: {message[1]}", file=sys.stderr)
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
    """What the user may have meant, and where all commands are listed."""
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, 2, 0.5)
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{meant} `ligr --help` lists the commands"


if __name__ == "__main__":
    sys.exit(main())
