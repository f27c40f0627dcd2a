"""W&B's server: where it is, whether we have a key for it, whether it answers.

The client asks for a missing key, and tries for minutes to reach a server that is away; a training
run does neither.
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
from ligr_jax.train.wandb_env import tidy_environment, variable

ANSWER_S = 5


def address() -> str:
    """URL of the server the client would use.

    Raises:
        ConfigError: the client refuses its settings, e.g. a variable of the environment.
    """
    tidy_environment()
    try:
        return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)
    except ValueError as e:
        raise ConfigError(f"W&B refuses its settings: {' '.join(str(e).split())}") from e


def has_key(url: str) -> bool:
    """Whether a key for the server lies in WANDB_API_KEY or in ~/.netrc (`wandb login`)."""
    if variable("WANDB_API_KEY"):
        return True
    hosts = [urlparse(url).netloc]
    if url == wandb.Settings().base_url:
        hosts.append("api.wandb.ai")  # whose keys the hosted service takes, whatever its address
    try:
        # By its path, as the client reads it: without one, Python refuses a file others can read.
        known = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) for host in hosts)


def answers(url: str) -> bool:
    """Whether anything answers there within seconds."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as e:
        return isinstance(e.reason, ssl.SSLError)  # the client brings its own certificates
    except OSError:
        return False
    return True
