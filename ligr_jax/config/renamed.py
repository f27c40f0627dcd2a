"""Names and values of earlier releases, and the ones that replace them.

A configuration that uses an earlier name or value, in a run directory, a sweep file or on the
command line, is refused with the replacement. It is never read silently: the digest of a
configuration, and so the name of a run directory, is computed from the names.
"""

from ligr_jax.config.errors import ConfigError

RENAMED_FIELDS = {"train.warm.strength": "train.warm.fisher_weight"}
RENAMED_VALUES = {
    "mesh.placement": {"column": "column_wise", "row": "row_wise", "table": "table_wise"},
}


class RenamedField(ConfigError):
    """A field or a value has an earlier release's name; the message gives the current one."""


def check_field(name: str) -> None:
    """Raise if `name` is an earlier name of a field.

    Args:
        name: dotted name, e.g. `train.warm.strength`.

    Raises:
        RenamedField: the field has another name now.
    """
    if name in RENAMED_FIELDS:
        raise RenamedField(f"{name} has been renamed; write {RENAMED_FIELDS[name]}")


def check_value(name: str, value: str, prefix: str = "") -> None:
    """Raise if `value` is an earlier name of a value of the field `name`.

    Args:
        name: dotted name of the field.
        value: one value of the field.
        prefix: text in front of the value, repeated in the message.

    Raises:
        RenamedField: the value has another name now.
    """
    current = RENAMED_VALUES.get(name, {}).get(value)
    if current:
        raise RenamedField(
            f"{name}={prefix}{value}: this value has been renamed; write {name}={prefix}{current}"
        )
