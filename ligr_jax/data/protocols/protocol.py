"""Protocols: what two teams must have in common to compare results on a public data set.

A protocol fixes which rows of a data set are used, where sessions and splits end, and which columns
are actions and features. `ligr prepare --protocol NAME` applies it and records name and version in
the manifest. Any change of a protocol that changes its data gets another version.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.options import (
    PrepareOptions,
    parse_duration,
    parse_fractions,
    parse_spans,
    parse_time,
)
from ligr_jax.data.prepare.splits import SplitSpans, SplitTimes
from ligr_jax.data.schema import RANDOM, TIME, BadInput
from ligr_jax.data.sources.parts import chained, converted, single_part
from ligr_jax.data.sources.source import LogBatch, LogSource

PROTOCOL = "protocol"  # key of `Manifest.source`


@dataclass(frozen=True)
class Protocol:
    """A protocol. Times, durations and fractions are written as on the command line.

    Attributes:
        name: value of `--protocol`.
        adapter: name of the data set's adapter.
        summary: what the protocol compares.
        version: number of the protocol's present form.
        files: patterns of file names, each of which at least one file of the log must match.
        session_gap: a longer gap starts a session, in data sets without session ids.
        train_until, validation_until, test_until: ends of the splits; "" with other rules, and for
            a test split that ends with the log.
        last: lengths of validation and test at the end of the log.
        fractions: shares of the rows of train, validation and test.
        leave_one_out: whether the last impression of a member is test and the one before it
            validation.
        since: earlier rows are left out.
        random: whether rows that a random policy chose are kept.
        context: whether earlier impressions without times are kept.
        actions: actions; () for all of the data set.
        features: features; () for all of the data set.
        notes: what a reader of results must know; the manifest records them.
        digests: digests of the prepared data of published files, by the name of the files; {} if
            none is known.
    """

    name: str
    adapter: str
    summary: str
    version: int = 1
    files: tuple[str, ...] = ()
    session_gap: str = "30m"
    train_until: str = ""
    validation_until: str = ""
    test_until: str = ""
    last: str = ""
    fractions: str = ""
    leave_one_out: bool = False
    since: str = ""
    random: bool = True
    context: bool = True
    actions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> SplitTimes | SplitSpans | None:
        """The rule of the splits; None if they are cut by `fractions`."""
        if self.last:
            return parse_spans(self.last)
        if not self.train_until:
            return None
        end = parse_time(self.test_until) if self.test_until else None
        return SplitTimes(parse_time(self.train_until), parse_time(self.validation_until), end)

    def options(self, base: PrepareOptions) -> PrepareOptions:
        """Return options of `prepare` with the sessions and splits of the protocol.

        Args:
            base: all other options.
        """
        shares = "1,0,0" if self.leave_one_out else self.fractions
        return replace(
            base,
            session_gap_ms=parse_duration(self.session_gap),
            splits=self.splits,
            fractions=parse_fractions(shares) if shares else PrepareOptions.fractions,
            leave_one_out=self.leave_one_out,
        )

    @property
    def split_rule(self) -> str:
        """The rule of the splits as text."""
        if self.last:
            return "the last {} are validation, then {} test".format(*self.last.split(","))
        if self.leave_one_out:
            return "the last impression of a member is test, the one before it validation"
        if not self.train_until:
            return f"shares of the rows, oldest first: {self.fractions}"
        test = self.test_until or "the end of the log"
        return f"train until {self.train_until}, validation {self.validation_until}, test {test}"

    def describe(self) -> dict[str, Any]:
        """Return the rules that have a value, by name, for `ligr sources`."""
        rules: dict[str, Any] = {
            "version": self.version,
            "files": list(self.files),
            "session_gap": self.session_gap,
            "splits": self.split_rule,
            "left_out": list(self._left_out()),
            "actions": list(self.actions),
            "features": list(self.features),
            "notes": list(self.notes),
            "digests": [f"{digest} ({name})" for name, digest in self.digests.items()],
        }
        return {name: value for name, value in rules.items() if value}

    def apply(self, source: LogSource) -> LogSource:
        """Return a log with the rows, actions and features of the protocol.

        Args:
            source: the log, of `adapter`.

        Raises:
            BadInput: the log lacks a file, an action or a feature of the protocol.
        """
        self._require_files(source.description["files"])
        schema = source.schema
        chosen = self._chosen("action", self.actions, schema.actions, source)
        actions = tuple(chosen) or schema.actions
        features = self._chosen("feature", self.features, list(schema.columns), source)
        kept = schema.columns if not features else {k: schema.columns[k] for k in features}
        parts = source.parts or (single_part(source.batches),)
        if self.since or not self.random:
            parts = tuple(converted(part, partial(kept_rows, protocol=self)) for part in parts)
        left_out = tuple(f"{self.name} leaves out {text}" for text in self._left_out())
        return replace(
            source,
            schema=replace(
                schema,
                actions=actions,
                late_actions=tuple(a for a in schema.late_actions if a in actions),
                columns=kept,
                notes=(*schema.notes, *self.notes, *left_out),
            ),
            batches=chained(parts),
            parts=parts,
            context=source.context if self.context else None,
            description={
                **source.description,
                PROTOCOL: {"name": self.name, "version": self.version},
            },
        )

    def _left_out(self) -> Iterator[str]:
        if self.since:
            yield f"rows before {self.since}"
        if not self.random:
            yield "rows that a random policy chose"
        if not self.context:
            yield "earlier impressions without times"

    def _require_files(self, files: Sequence[Mapping[str, Any]]) -> None:
        names = [str(file["name"]) for file in files]
        for pattern in self.files:
            if not any(fnmatch(name, pattern) for name in names):
                raise BadInput(
                    f"--protocol {self.name} needs a file {pattern}, and the files of the log are "
                    f"{names}; give the directory of that data set, or another protocol "
                    f"(`ligr sources {self.adapter}`)"
                )

    def _chosen(
        self, role: str, names: Sequence[str], present: Sequence[str], source: LogSource
    ) -> list[str]:
        """Return names in the order of the log's schema."""
        missing = [name for name in names if name not in present]
        if missing:
            raise BadInput(
                f"--protocol {self.name} has the {role} {missing[0]!r}, which this log of "
                f"{source.name} lacks (it has {', '.join(present)}); an optional file may be "
                f"missing (`ligr sources {self.adapter}`)"
            )
        return [name for name in present if name in names]


def kept_rows(batch: LogBatch, protocol: Protocol) -> LogBatch:
    """Return the rows of a batch that a protocol keeps; a row without a time is kept."""
    keep = pl.lit(True)
    if protocol.since:
        time = pl.col(TIME).cast(pl.Int64, strict=False)
        keep &= (time >= parse_time(protocol.since)).fill_null(True)
    if not protocol.random:
        keep &= (pl.col(RANDOM).cast(pl.Int8, strict=False) != 1).fill_null(True)
    mask = batch.frame.select(keep.alias("keep"))["keep"]
    if mask.all():
        return batch
    rows = np.flatnonzero(mask.to_numpy())
    return replace(
        batch,
        frame=batch.frame.filter(mask),
        faults=tuple(replace(f, rows=f.rows[rows], values=f.values[rows]) for f in batch.faults),
        row_numbers=(
            batch.first_row + rows if batch.row_numbers is None else batch.row_numbers[rows]
        ),
    )


def protocol_of(manifest: Manifest) -> tuple[str, int] | None:
    """Return name and version of the protocol of prepared data, None without one."""
    recorded = manifest.source.get(PROTOCOL)
    return (recorded["name"], recorded["version"]) if recorded else None
