"""Options for reading text files."""

import codecs
from dataclasses import dataclass, replace

from ligr_jax.data.schema import BadInput

DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class TextOptions:
    """How text files are read.

    Attributes:
        delimiter: delimiter of fields; "" infers it from the suffix and the first line. A delimiter
            of several characters, such as `::`, excludes quotes.
        encoding: encoding of the text.
        null_values: words that stand for a missing value, also in Parquet files. An empty cell is
            always missing. No word is missing by default, because NA is a country code.
        names: columns of a text file without a header.
        has_flags: whether the command has options for reading text, which messages then name.
        no_header: whether the first line has values. Without `names`, columns are named 1, 2, ...
        no_quotes: whether a quote is an ordinary character.

    Raises:
        BadInput: the delimiter cannot be used, or the encoding is not known.
    """

    delimiter: str = ""
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    has_flags: bool = True
    no_header: bool = False
    no_quotes: bool = False

    def hint(self, text: str) -> str:
        """Return the part of a message that names an option; "" if the command has none."""
        return text if self.has_flags else ""

    def of_side_table(self) -> "TextOptions":
        """Return the options for an item or label table: a header, and any common delimiter."""
        return replace(self, delimiter="", names=(), no_header=False)

    @property
    def headless(self) -> bool:
        """Whether files have no header."""
        return self.no_header or bool(self.names)

    @property
    def quoted(self) -> bool:
        """Whether a quote starts a cell that may contain delimiters and line breaks."""
        return not self.no_quotes and len(self.delimiter) <= 1

    @property
    def wide(self) -> bool:
        """Whether all characters of the encoding have several bytes."""
        return codecs.lookup(self.encoding).name.startswith(("utf-16", "utf-32"))

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError as e:
            raise BadInput(
                f"--encoding {self.encoding!r} is not known; give e.g. utf-8, utf-16, latin-1 or "
                "cp1252"
            ) from e
        if len(self.delimiter) > 1 and self.wide:
            raise BadInput(
                f"--delimiter {self.delimiter!r}: a delimiter of several characters cannot be "
                f"combined with --encoding {self.encoding}; convert the file to UTF-8"
            )


def parse_delimiter(text: str) -> str:
    """Return the delimiter of a command-line argument, e.g. `tab`."""
    return DELIMITERS.get(text, text)
