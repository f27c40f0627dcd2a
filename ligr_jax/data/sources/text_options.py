"""Options for reading text files."""

import codecs
from dataclasses import dataclass

from ligr_jax.data.schema import BadInput

DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class TextOptions:
    """How text files are read.

    Attributes:
        delimiter: delimiter of fields; "" infers it from the suffix and the header.
        encoding: encoding of the text.
        null_values: words that stand for a missing value, also in Parquet files. An empty cell is
            always missing. No word is missing by default, because NA is a country code.
        names: columns of a text file without a header.
        has_flags: whether the command has options for reading text, which messages then name.

    Raises:
        BadInput: the delimiter is not one character, or the encoding is not known.
    """

    delimiter: str = ""
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    has_flags: bool = True

    def hint(self, text: str) -> str:
        """Return the part of a message that names an option; "" if the command has none."""
        return text if self.has_flags else ""

    def __post_init__(self) -> None:
        if self.delimiter and len(self.delimiter) != 1:
            raise BadInput(
                f"--delimiter {self.delimiter!r}: give one character, or one of "
                f"{', '.join(DELIMITERS)}"
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError as e:
            raise BadInput(
                f"--encoding {self.encoding!r} is not known; give e.g. utf-8, utf-16, latin-1 or "
                "cp1252"
            ) from e


def parse_delimiter(text: str) -> str:
    """Return the delimiter of a command-line argument, e.g. `tab`."""
    return DELIMITERS.get(text, text)
