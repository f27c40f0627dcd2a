"""How the text of a file is to be read, where that is not found out."""

import codecs
from dataclasses import dataclass

from ligr_jax.data.schema import BadInput

DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class Reading:
    """Options of reading.

    delimiter: between the fields of a text file; "" finds it out from suffix and header.
    encoding: of a text file.
    null_values: words that mean a missing value, in text files and in Parquet. The empty cell
        always does, and no other word does by itself: NA is a country.
    names: columns of a text file without a header line.
    """

    delimiter: str = ""
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

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
    """A delimiter as it is written on the command line."""
    return DELIMITERS.get(text, text)
