"""How much memory does a minimal perfect hash save over a vocabulary dictionary (LiRank 3.12)?

    pip install bbhash          BBHash (Limasset et al. 2017), the function the paper names
    python experiments/perfect_hash.py

N distinct ids such as `member:8269` are mapped to rows of an embedding table.

    dict       a Python dictionary from string to row
    sorted     xxh64 of the ids, sorted; a row is the position found by bisection (NumPy)
    perfect    BBHash over xxh64 of the ids, gamma 1; an unknown id gets some row
    checked    the same with a byte of each id's hash, which most unknown ids do not match
    stateless  no vocabulary at all: `ops.hashing.hash_rows` into N rows, where ids share rows

build: from strings, hashing included. one: a single string, the call of Python included. strings,
ids: 1e6 lookups drawn uniformly, from strings or from the 64-bit ids that prepared data holds.
unknown: share of ids outside the vocabulary that get a row. shared: share of the ids of the
vocabulary whose row another one has too. Contestants take turns; times are medians.

Expected: 300 times smaller than the dictionary, built in the same time, and 3 to 4 times as fast at
lookups from strings; but without a check every unknown id is taken for a known one. Numbers:
experiments/results/perfect_hash.json. Time: 5 minutes.
"""

import argparse
import gc
import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash
from lib.options import make_parser
from lib.results import Cell, Column, Study
from peers.workers import Neighbours, alternate, quartiles, ratio

from ligr_jax.data.sources.ids import hash_strings
from ligr_jax.ops.hashing import hash_rows

GAMMA = 1.0  # the smallest function; larger ones answer faster
UNKNOWN = -1
KINDS = ("build", "one", "strings", "ids")


class Dictionary:
    def __init__(self, strings: pl.Series) -> None:
        self.rows = dict(zip(strings.to_list(), range(len(strings))))

    def bytes(self) -> int:
        inner = sum(sys.getsizeof(k) + sys.getsizeof(v) for k, v in self.rows.items())
        return sys.getsizeof(self.rows) + inner

    def one(self, string: str) -> int:
        result: int = self.rows.get(string, UNKNOWN)
        return result

    def strings(self, strings: pl.Series) -> np.ndarray:
        rows = map(self.rows.get, strings.to_list(), itertools.repeat(UNKNOWN))
        return np.fromiter(rows, np.int64, len(strings))


class Hashed:
    """Lookup of 64-bit hashes; a string is hashed by xxh64."""

    def one(self, string: str) -> int:
        return int(self.ids(np.array([hash_of(string)], np.uint64))[0])

    def strings(self, strings: pl.Series) -> np.ndarray:
        return self.ids(hashes(strings))

    def ids(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Sorted(Hashed):
    def __init__(self, strings: pl.Series) -> None:
        self.hashes = np.sort(hashes(strings))

    def bytes(self) -> int:
        return self.hashes.nbytes

    def ids(self, ids: np.ndarray) -> np.ndarray:
        row = np.minimum(np.searchsorted(self.hashes, ids), len(self.hashes) - 1)
        return np.where(self.hashes[row] == ids, row, UNKNOWN)


class Perfect(Hashed):
    def __init__(self, strings: pl.Series) -> None:
        import bbhash

        ids = hashes(strings)
        self.function = bbhash.PyMPHF(ids.tolist(), len(ids), os.cpu_count(), GAMMA)
        self.remember(ids)

    def remember(self, ids: np.ndarray) -> None:
        """Store nothing: this variant has only the hash function."""

    def bytes(self) -> int:
        with tempfile.TemporaryDirectory() as directory:
            self.function.save(f"{directory}/function")
            return Path(directory, "function").stat().st_size

    def one(self, string: str) -> int:
        row = self.function.lookup(hash_of(string))
        return UNKNOWN if row is None else row

    def ids(self, ids: np.ndarray) -> np.ndarray:
        result: np.ndarray = self.function.lookup_many(ids).view(np.int64)
        return result


class Checked(Perfect):
    def remember(self, ids: np.ndarray) -> None:
        self.check = np.empty(len(ids), np.uint8)
        self.check[super().ids(ids)] = ids.astype(np.uint8)

    def bytes(self) -> int:
        return super().bytes() + self.check.nbytes

    def one(self, string: str) -> int:
        ids = hash_of(string)
        row = self.function.lookup(ids)
        return row if row is not None and self.check[row] == ids & 255 else UNKNOWN

    def ids(self, ids: np.ndarray) -> np.ndarray:
        row = super().ids(ids)
        return np.where((row != UNKNOWN) & (self.check[row] == ids.astype(np.uint8)), row, UNKNOWN)


class Stateless(Hashed):
    def __init__(self, strings: pl.Series) -> None:
        self.n = len(strings)

    def bytes(self) -> int:
        return 0

    def ids(self, ids: np.ndarray) -> np.ndarray:
        return hash_rows(ids, self.n + 1) - 1


CONTESTANTS: dict[str, Any] = {
    "dict": Dictionary,
    "sorted": Sorted,
    "perfect": Perfect,
    "checked": Checked,
    "stateless": Stateless,
}


def hash_of(string: str) -> int:
    return xxhash.xxh64_intdigest(string.encode())


def hashes(strings: pl.Series) -> np.ndarray:
    return hash_strings(strings).view(np.uint64)


def vocabulary(n: int) -> tuple[pl.Series, pl.Series]:
    """Return n ids of the vocabulary and n unknown ids."""
    numbers = np.random.default_rng(0).permutation(2 * n)
    text = "member:" + pl.Series(numbers).cast(pl.String)
    return text[:n], text[n:]


def measure(n: int, rounds: int, count: int) -> dict[str, dict[str, Any]]:
    known, unknown = vocabulary(n)
    drawn = known[np.random.default_rng(1).integers(0, n, count)]
    ids, few = hashes(drawn), drawn[:10_000].to_list()
    built: dict[str, Any] = {}

    def build(name: str) -> None:
        built.pop(name, None)
        built[name] = CONTESTANTS[name](known)

    seconds = {"build": alternate({k: clock(build, k) for k in CONTESTANTS}, min(rounds, 3))}
    for kind, asked in (("one", few), ("strings", drawn), ("ids", ids)):
        calls = {k: getattr(c, kind, None) for k, c in built.items()}
        if kind == "one":
            calls = {k: partial(each, call) for k, call in calls.items() if call}
        samples = {k: clock(call, asked) for k, call in calls.items() if call}
        seconds[kind] = alternate(samples, rounds)
    report = {}
    for name, contestant in built.items():
        rows = contestant.strings(known)
        singly = [contestant.one(s) for s in few]
        if (rows < 0).any() or singly != contestant.strings(drawn[: len(few)]).tolist():
            raise RuntimeError(f"{name} loses ids of its vocabulary, or finds others one by one")
        alone = np.bincount(rows, minlength=n)[rows] == 1
        times = {k: s[name] for k, s in seconds.items() if name in s}
        times["one"] = [t / len(few) for t in times["one"]]
        report[name] = {
            "bytes": contestant.bytes() / n,
            "unknown": float((contestant.strings(unknown) >= 0).mean()),
            "shared": float(1 - alone.mean()),
            "seconds": times,
        }
    return report


def clock(call: Callable[..., Any], *arguments: Any) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        call(*arguments)
        return time.perf_counter() - began

    return seconds


def each(call: Callable[[str], int], strings: list[str]) -> None:
    for string in strings:
        call(string)


def add_lookups(study: Study, n: int, count: int, report: dict[str, dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for name, measured in report.items():
        medians = {k: quartiles(v)[1] for k, v in measured["seconds"].items()}
        rates = (count / medians[k] / 1e6 if k in medians else None for k in KINDS[2:])
        shares = (100 * measured["unknown"], 100 * measured["shared"])
        rows.append(
            [name, measured["bytes"], medians["build"], 1e9 * medians["one"], *rates, *shares]
        )
    columns = [
        Column("method"),
        Column("bytes per id", ".4g"),
        Column("build, s", ".2f"),
        Column("one, ns", ".0f"),
        Column("strings, M/s", ".1f"),
        Column("ids, M/s", ".3g"),
        Column("unknown, %", ".2f"),
        Column("shared, %", ".1f"),
    ]
    study.add(f"{n:.0e}", f"N = {n:.0e}: medians over the rounds.", columns, rows)
    for kind in KINDS[:3]:
        low, middle, high = ratio(*(report[k]["seconds"][kind] for k in ("dict", "perfect")))
        print(f"{kind}: dict / perfect {middle:.2f} [{low:.2f}, {high:.2f}]")


def main() -> None:
    args, neighbours = arguments(), Neighbours()
    gc.disable()  # a collection would visit millions of strings
    study = Study.of(__file__, __doc__)
    reports = {}
    for n in args.keys:
        reports[str(n)] = report = measure(n, args.rounds, args.lookups)
        add_lookups(study, n, args.lookups, report)
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(reports, indent=1) + "\n")
    print(args.out)
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/perfect_hash.json"), help="[%(default)s]")
    add("--keys", type=int, nargs="+", default=(1_000_000, 10_000_000), metavar="N")
    add("--rounds", type=int, default=7, help="[%(default)s]")
    add("--lookups", type=int, default=1_000_000, help="a batch [%(default)s]")
    args = parser.parse_args()
    if importlib.util.find_spec("bbhash") is None:
        parser.error("needs BBHash: pip install bbhash")
    return args


if __name__ == "__main__":
    main()
