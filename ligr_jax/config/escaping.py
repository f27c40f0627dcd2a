"""Escaping of user-defined names in paths of arrays, keys of metrics, and file names."""

import re
from urllib.parse import unquote


def escape(name: str, signs: str = "/.") -> str:
    """Percent-encode some characters of a name.

    Args:
        name: the name.
        signs: characters to encode, in addition to %.
    """
    for sign in f"%{signs}":
        name = name.replace(sign, f"%{ord(sign):02X}")
    return name


def metric_key(action: str) -> str:
    """Return the name of an action in keys of metrics, `validation/<action>/auc`."""
    return escape(action, "/")


def file_name(name: str) -> str:
    """Return a name of letters, digits, _ and - for files and addresses; e.g. / becomes .2f."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f".{ord(match[0]):x}.", name)


def unescape(text: str) -> str:
    """Return the original name of a name from `escape`."""
    return unquote(text)
