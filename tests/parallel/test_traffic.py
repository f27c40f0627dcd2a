"""Collectives are parsed from all forms of HLO text that XLA writes."""

import pytest

from ligr_jax.parallel.traffic import Collective, collectives

F = "f32"


@pytest.mark.parametrize(
    ("line", "expected", "sent"),
    [
        (
            "%a = f32[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8]",
            Collective("all-gather", ((F, (8, 4)),), 4),
            3 * 8 * 4,  # its quarter of 128 bytes to three others
        ),
        (
            "%b = (f32[], f32[10]{0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3}}",
            Collective("all-reduce", ((F, ()), (F, (10,))), 2),
            44,
        ),
        (
            "%c = f32[6]{0} all-reduce-start(%x), replica_groups=mesh['u'=2,'v'=4] {'u','v'}",
            Collective("all-reduce", ((F, (6,)),), 8),
            42,
        ),
        (
            "%d = (s32[1,5]{1,0}, /*index=5*/s32[1,5]{1,0}) all-to-all(%x, %y), "
            "replica_groups={{0,2}}",
            Collective("all-to-all", (("s32", (1, 5)), ("s32", (1, 5))), 2),
            20,
        ),
        (
            "%e = f32[3]{0} reduce-scatter(%x), replica_groups=[1,4]<=[4], dimensions={0}",
            Collective("reduce-scatter", ((F, (3,)),), 4),
            36,
        ),
    ],
)
def test_collective_is_read_from_a_line_of_hlo(line: str, expected: Collective, sent: int) -> None:
    assert list(collectives(line)) == [expected]
    assert expected.sent == sent


def test_groups_of_one_device_are_ignored() -> None:
    alone = "%a = f32[8]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%r"
    other = "%b = f32[8]{0} get-tuple-element(%all-reduce.1), index=0"
    assert not list(collectives(f"{alone}\n{other}"))
