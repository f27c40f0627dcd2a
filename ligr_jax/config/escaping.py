"""Names of users where a backend gives some signs a meaning: paths of arrays, keys of metrics."""

import re
from urllib.parse import unquote


def escape(name: str, signs: str = "/.") -> str:
    """The name with `signs`, and %, written as %2F: the same for names without any."""
    for sign in f"%{signs}":
        name = name.replace(sign, f"%{ord(sign):02X}")
    return name


def metric_key(action: str) -> str:
    """An action as a part of a metric's name, `validation/<action>/auc`."""
    return escape(action, "/")


def file_name(name: str) -> str:
    """The name as a file's, an address's and an id's: of letters, digits, _, -, and .2f. for /."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f".{ord(match[0]):x}.", name)


def unescape(text: str) -> str:
    """The inverse of `escape`, whatever its signs."""
    return unquote(text)
