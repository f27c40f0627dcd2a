"""Download a public data set and unpack it for `ligr prepare`.

The archive is written to OUT and compared with its published checksum; an interrupted download is
continued. It is unpacked to OUT/NAME, which is complete or absent; the archive can then be removed.
Without a network, copy the archive to OUT and run the command again.

examples:
  ligr download kuairand-pure --out data
  ligr download movielens-latest-small --out data
"""

import argparse
import logging
from pathlib import Path

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.adapter import Adapter
from ligr_jax.data.sources.download import download
from ligr_jax.data.sources.formats import ADAPTERS
from ligr_jax.data.sources.unpack import unpack_archive

_log = logging.getLogger(__name__)


def _archives() -> dict[str, Adapter]:
    """Return the adapter of every archive, by the name of the archive."""
    return {name: adapter for adapter in ADAPTERS.values() for name in adapter.archives}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ligr download`."""
    parser.add_argument("name", metavar="NAME", help=", ".join(_archives()))
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="directory to write")


def run(args: argparse.Namespace) -> None:
    """Download and unpack an archive, and print the next command.

    Raises:
        BadInput: the name is not known, or the archive cannot be downloaded or unpacked.
    """
    adapter = _archives().get(args.name)
    if adapter is None:
        other = ADAPTERS.get(args.name)
        raise BadInput(
            f"ligr download {args.name}: {other.obtain}"
            if other is not None and not other.archives
            else f"ligr download {args.name}: not known; the names are {', '.join(_archives())}"
        )
    directory = args.out / args.name
    if not directory.exists():
        archive = adapter.archives[args.name]
        file = download(archive.url, archive.checksum, args.out / archive.url.rpartition("/")[2])
        _log.info(f"unpacking {file}")
        unpack_archive(file, directory)
    lacking = adapter.lacking(directory)
    if lacking != []:
        raise BadInput(
            f"{directory} does not have the files of {adapter.name}: "
            f"{'; '.join(lacking or ['none is present'])}; remove the directory and try again"
        )
    print(f"{directory}: {adapter.title}\nterms: {adapter.obtain}")
    print(f"next: ligr prepare {directory} --out PREPARED (protocols: ligr sources {adapter.name})")
