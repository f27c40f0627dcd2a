"""Ports for servers of tests."""

import socket


def free_port() -> int:
    """Return a port of this host that no program uses now."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    return port
