"""Communication between devices of a compiled program, read from its HLO."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_OPERATION = re.compile(
    r"= (\(?[^=]*?\)?) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)"
    r"(?:-start)?\("
)
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective operation of a compiled program.

    Attributes:
        kind: Name of the operation in HLO, e.g. all-reduce.
        arrays: Type and shape of each result, per device.
        devices: Number of devices of a group.
    """

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    devices: int

    @property
    def sent(self) -> int:
        """Bytes that each device sends in a ring algorithm."""
        g = self.devices
        size = 0
        for kind, shape in self.arrays:
            size += math.prod(shape) * _BYTES[kind]
        share = {"all-gather": 1 / g, "all-reduce": 2 / g, "all-to-all": 1 / g}
        if self.kind == "collective-permute":
            return size
        return round(size * (g - 1) * share.get(self.kind, 1.0))


def collectives(hlo: str) -> Iterator[Collective]:
    """Yield the collectives of a compiled program that involve more than one device.

    Args:
        hlo: Text of the compiled program.
    """
    for line in hlo.splitlines():
        match = _OPERATION.search(re.sub(r"/\*.*?\*/", "", line))  # "/*index=5*/" in long tuples
        if match:
            arrays = tuple(
                (kind, tuple(int(n) for n in axes.split(",") if n))
                for kind, axes in _SHAPE.findall(match[1])
            )
            devices = _group(line)
            if devices > 1:
                yield Collective(match[2], arrays, devices)


def _group(line: str) -> int:
    """Return the devices per replica group of a line of HLO.

    Groups are written as {{0,1},{2,3}}, [groups, devices]<=[...], or axes of a mesh,
    mesh['x'=2,'y'=4] {'y'}.
    """
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return int(iota[2])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", line)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return 2 if "source_target_pairs" in line else 1
