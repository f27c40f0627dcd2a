"""What all parts share: sizes, options, and a share of the time."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from peers.cases import Case

T = TypeVar("T")
SESSION = 33  # mean tokens of a session
Results = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Steps:
    """A whole training step: T, members of a row, and fields of ModelConfig."""

    length: int
    members: int
    model: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured. Cases come in the order of importance: the last ones may lack time."""

    tokens: int  # of a call of attention
    heads: int
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    tuned: int  # T of the cases whose tiles are measured
    tiles: int  # that are measured besides the default ones
    checked: int  # T of the cases that are compared with the dense form
    activations: tuple[str, ...]  # of these cases
    step_tokens: int  # of a device's step
    steps: tuple[Steps, ...]
    step_rows: int  # of each of two tables
    product: int  # side of the matrix product that gives the reachable peak
    table_rows: tuple[int, ...]
    lookups: int

    def case(self, kind: str, length: int, width: int, members: int, dtype: Any) -> Case:
        batch = max(1, self.tokens // length)
        return Case(kind, length, SESSION, members, dtype, batch, self.heads, width)


FULL = Sizes(
    tokens=65_536,
    heads=8,
    lengths=(2048, 8192, 512),
    widths=(128, 64),
    tuned=2048,
    tiles=5,
    checked=512,
    activations=("softmax", "silu", "sigmoid"),
    step_tokens=65_536,
    steps=(
        Steps(2048, 1, {"width": 256, "depth": 16, "heads": 4}),
        Steps(4096, 1, {"width": 1024, "depth": 8, "heads": 8}),
        Steps(2048, 4, {"width": 256, "depth": 16, "heads": 4}),
    ),
    step_rows=1_000_000,
    product=8192,
    table_rows=(1_000_000, 10_000_000),
    lookups=1_000_000,
)
SMOKE = Sizes(
    tokens=128,
    heads=2,
    lengths=(64,),
    widths=(16,),
    tuned=64,
    tiles=1,
    checked=64,
    activations=("softmax",),
    step_tokens=64,
    steps=(Steps(32, 1, {"width": 8, "depth": 1, "heads": 2}),),
    step_rows=100,
    product=64,
    table_rows=(200,),
    lookups=104,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """The options of one run, and when its current part has to end."""

    sizes: Sizes
    torch: str | None  # an interpreter
    rounds: int
    env: dict[str, str]
    until: float  # of time.monotonic()

    def in_time(self, cases: Iterable[T]) -> Iterator[T]:
        """Yield the first case, and others until the part's time is over; say what is left out."""
        first, *remaining = cases
        yield first
        while remaining and time.monotonic() < self.until:
            yield remaining.pop(0)
        if remaining:
            print(f"out of time: {len(remaining)} cases left out", flush=True)
