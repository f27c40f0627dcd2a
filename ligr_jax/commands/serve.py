"""Serve an artifact over HTTP: rank candidates for members.

The histories of members come from an activity store, so serving sees what training saw. Encoded
histories are cached; requests of similar size are scored together. A new version that `ligr export`
adds to DIR is served as soon as its golden scores are verified, without a restart.

examples:
  ligr export runs/first --out exports/first
  ligr store build data/prepared --out stores/feed
  ligr serve exports/first --store stores/feed
  ligr serve exports/first --store stores/feed --port 9000 --warm-up 512 --cache-mb 4096

requests (http://127.0.0.1:8000/docs describes all of them):
  curl -d '{"member_id": 7, "candidates": [{"timestamp_ms": 1790000000000, "item_id": 3}]}' \\
      localhost:8000/v1/score
  curl -d '[{"member_id": 7, "timestamp_ms": 1790000000000, "item_id": 3, "click": 1}]' \\
      localhost:8000/v1/impressions
  curl localhost:8000/readyz
  curl localhost:8000/metrics

SIGTERM and Ctrl-C stop the service after it has answered the waiting requests.
"""

import argparse
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from ligr_jax.commands.arguments import positive_float, positive_int
from ligr_jax.errors import FileError

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", type=Path, help="output of `ligr export`")
    parser.add_argument(
        "--store", metavar="DIR", type=Path, required=True, help="output of `ligr store build`"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, help="port; 0: any free one [8000]")
    batches = parser.add_argument_group("batches")
    batches.add_argument(
        "--largest-batch", type=positive_int, default=8, metavar="N", help="requests of a batch [8]"
    )
    batches.add_argument(
        "--wait-ms",
        type=positive_float,
        default=2.0,
        metavar="MS",
        help="time that a request waits for others of its size [2]",
    )
    batches.add_argument(
        "--most-waiting",
        type=positive_int,
        default=256,
        metavar="N",
        help="further requests are refused with status 503 [256]",
    )
    batches.add_argument(
        "--timeout-ms",
        type=positive_float,
        default=1000.0,
        metavar="MS",
        help="a request that has waited longer is refused [1000]",
    )
    parser.add_argument(
        "--cache-mb",
        type=positive_float,
        default=1024.0,
        metavar="MB",
        help="memory for encoded histories [1024]",
    )
    parser.add_argument(
        "--poll-s",
        type=positive_float,
        default=1.0,
        metavar="S",
        help="time between two looks for a new version [1]",
    )
    parser.add_argument(
        "--warm-up",
        type=positive_int,
        nargs="*",
        default=(),
        metavar="C",
        help="numbers of candidates whose programs are compiled before the start",
    )
    parser.add_argument(
        "--body-mb", type=positive_float, default=32.0, metavar="MB", help="largest body [32]"
    )


def run(args: argparse.Namespace) -> int:
    try:
        import uvicorn

        from ligr_jax.serve.service.app import create_app
    except ModuleNotFoundError as e:
        from ligr_jax.data.schema import BadInput

        raise BadInput(f"no module {e.name}: pip install 'ligr-jax[serve]'") from e
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.serve.service.service import Service, ServiceOptions
    from ligr_jax.stop import stop_request

    use_all_cores()
    options = ServiceOptions(
        largest_batch=args.largest_batch,
        wait_ms=args.wait_ms,
        most_waiting=args.most_waiting,
        timeout_ms=args.timeout_ms,
        cache_mb=args.cache_mb,
        poll_s=args.poll_s,
        warm_up=tuple(args.warm_up),
    )
    service = Service(args.artifact, args.store, options)
    app = create_app(service, int(args.body_mb * 2**20))
    # asyncio's own loop: uvloop would take the signals of the command line.
    config = uvicorn.Config(app, loop="asyncio", access_log=False, log_config=None, lifespan="on")
    with stop_request() as stop, listening_socket(args.host, args.port) as listener:
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        stop.defer()
        stop.on_request(lambda: setattr(server, "should_exit", True))
        host, port = listener.getsockname()[:2]
        _log.info("version %s is served on http://%s:%d", service.versions.name, host, port)
        server.run([listener])
    return 0


@contextlib.contextmanager
def listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens.

    Raises:
        FileError: the address is not of this host, or the port is in use.
    """
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except (OSError, OverflowError) as e:
        raise FileError(f"cannot listen on {host}:{port}: {e}; choose another --port") from e
    with listener:
        yield listener
