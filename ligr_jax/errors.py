"""The base of all errors that a user can mend.

`ligr` prints a `LigrError` as one line and exits with its `exit_status`. Every other exception is a
bug of this package and shows its traceback.
"""

from ligr_jax.exit_status import FAILED, USAGE


class LigrError(Exception):
    """An error that the user can mend: the message names file, field, value and remedy.

    exit_status: of `ligr` where this error ends a command.
    """

    exit_status = FAILED


class UsageError(LigrError):
    """A command line that names something which cannot be meant."""

    exit_status = USAGE
