"""What stands between a representation and the logits: `model.head`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require
from ligr_jax.config.lists import join_list

# Of LiRank's Feed (3.1): click and long dwell share a tower, contributions another.
CLICKS = ("click", "dwell", "long_dwell", "long_view")


@dataclass(frozen=True)
class HeadConfig:
    """Heads of any kind of model (LiRank 3.4, 3.5, 3.10).

    kind: `linear`, one map of what the trunk gives; `mlp`, a tower of hidden layers for each group
        of actions; `mmoe` and `ple`, such towers on mixtures of experts, one mixture a group.
    groups: actions that share a tower, e.g. `click+long_dwell,like+comment+share`; empty: what the
        kind of model groups by itself, or a tower for each action.
    widths: hidden layers of a tower.
    gated: hidden layers of towers and experts through gates (GateNet).
    experts, expert_widths: of `mmoe`; of `ple` for each group, beside `shared_experts` for all, in
        each of `levels`.
    calibration: an isotonic layer after the logits; buckets of `calibration_step`.
    calibration_features: item features whose values give it curves of their own.
    """

    kind: Literal["linear", "mlp", "mmoe", "ple"] = "linear"
    groups: tuple[str, ...] = ()
    widths: tuple[int, ...] = (64,)
    gated: bool = False
    experts: int = 4
    expert_widths: tuple[int, ...] = (64,)
    shared_experts: int = 2
    levels: int = 1
    calibration: bool = False
    calibration_step: float = 0.5
    calibration_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("experts", "shared_experts", "levels"):
            value = getattr(self, name)
            require(value >= 1, f"model.head.{name}={value} must be >= 1")
        for name in ("widths", "expert_widths"):
            widths = getattr(self, name)
            require(
                all(width >= 1 for width in widths),
                f"model.head.{name}={','.join(map(str, widths))}: hidden widths must be >= 1",
            )
        require(
            self.kind not in ("mmoe", "ple") or bool(self.expert_widths),
            f"model.head.kind={self.kind} needs model.head.expert_widths, e.g. 64",
        )
        require(
            0 < self.calibration_step <= 25,
            f"model.head.calibration_step={self.calibration_step} must lie in (0, 25], the range "
            "of logits that are calibrated",
        )
        require(
            self.calibration or not self.calibration_features,
            f"model.head.calibration_features={','.join(self.calibration_features)} but "
            "model.head.calibration=false; set it to true",
        )


def action_groups(
    actions: Sequence[str], given: Sequence[str], feed: bool
) -> tuple[tuple[int, ...], ...]:
    """Numbers of the actions of each group.

    Args:
        given: `HeadConfig.groups`.
        feed: without `given`, clicks and contributions; else a group for each action.

    Raises:
        ConfigError: `given` leaves an action out, has one twice, or names one there is not.
    """
    if given:
        members = [_members(group, actions) for group in given]
        require(
            sorted(a for group in members for a in group) == list(range(len(actions))),
            f"model.head.groups={join_list(given)} must hold each of model.actions="
            f"{join_list(actions)} once",
        )
        return tuple(members)
    if not feed:
        return tuple((a,) for a in range(len(actions)))
    clicks = tuple(a for a, name in enumerate(actions) if name in CLICKS)
    others = tuple(a for a in range(len(actions)) if a not in clicks)
    return tuple(group for group in (clicks, others) if group)


def _members(group: str, actions: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the actions in `a+b`, whose names may have a plus; -1 where one is unknown."""
    if group in actions:
        return (actions.index(group),)
    for end, sign in reversed(list(enumerate(group))):
        if sign == "+" and group[:end] in actions:
            rest = _members(group[end + 1 :], actions)
            if -1 not in rest:
                return (actions.index(group[:end]), *rest)
    return (-1,)
