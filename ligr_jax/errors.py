"""The base of all errors that a user can mend.

`ligr` prints a `LigrError` as one line and exits with its `exit_status`. Every other exception is a
bug of this package and shows its traceback.
"""


class LigrError(Exception):
    """An error that the user can mend: the message names file, field, value and remedy.

    exit_status: of `ligr` where this error ends a command.
    """

    exit_status = 1


class UsageError(LigrError):
    """A command line that names something which cannot be meant."""

    exit_status = 2
