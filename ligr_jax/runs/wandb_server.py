"""W&B's server: its URL, whether there is a key for it, and whether it is reachable.

The client would prompt for a missing key, and it would try for minutes to reach a server. A
training run checks both first.
"""

import netrc
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import wandb

from ligr_jax.config import ConfigError
from ligr_jax.runs.wandb_env import environment_variable, normalize_environment

ANSWER_S = 5


def server_url() -> str:
    """Return the URL of the server that the client uses.

    Raises:
        ConfigError: The client refuses its settings, e.g. an environment variable.
    """
    normalize_environment()
    try:
        return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)
    except ValueError as e:
        raise ConfigError(f"W&B refuses its settings: {' '.join(str(e).split())}") from e


def has_key(url: str) -> bool:
    """Return whether WANDB_API_KEY or ~/.netrc (`wandb login`) has a key for the server."""
    if environment_variable("WANDB_API_KEY"):
        return True
    hosts = [urlparse(url).netloc]
    if url == wandb.Settings().base_url:
        hosts.append("api.wandb.ai")  # the hosted service accepts these keys at all its addresses
    try:
        # With a path, as the client does. Without one, Python refuses a file that others can read.
        known = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) for host in hosts)


def is_reachable(url: str) -> bool:
    """Return whether a server answers at the URL within `ANSWER_S` seconds."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as e:
        return isinstance(e.reason, ssl.SSLError)  # the client has its own certificates
    except OSError:
        return False
    return True
