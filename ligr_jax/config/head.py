"""Configuration of the layers between a representation and the logits, `model.head`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require
from ligr_jax.config.lists import join_list

# LiRank's Feed model (3.1) has one tower for clicks and long dwell, and one for contributions.
CLICKS = ("click", "dwell", "long_dwell", "long_view")


@dataclass(frozen=True)
class HeadConfig:
    """Heads for all kinds of model (LiRank 3.4, 3.5, 3.10)."""

    kind: Literal["linear", "mlp", "mmoe", "ple"] = "linear"
    """`linear` is one linear layer; `mlp` is a tower of hidden layers per group of actions; `mmoe`
    and `ple` are towers on mixtures of experts, one mixture per group."""
    groups: tuple[str, ...] = ()
    """Actions that share a tower, e.g. `click+long_dwell,like+comment+share`. If empty, the groups
    of the kind of model apply, or every action has a tower."""
    widths: tuple[int, ...] = (64,)
    """Widths of the hidden layers of a tower."""
    gated: bool = False
    """Whether hidden layers of towers and experts have gates (GateNet)."""
    experts: int = 4
    """Number of experts of `mmoe`, or of each group in each level of `ple`."""
    expert_widths: tuple[int, ...] = (64,)
    """Widths of the hidden layers of an expert."""
    shared_experts: int = 2
    """Number of experts shared by all groups in each level of `ple`."""
    levels: int = 1
    """Number of levels of `ple`."""
    cross_layers: int = 0
    """Number of low-rank cross layers of a tower whose logits are added to those of the head: with
    `late` features and `kind=mmoe`, Feed-SR's head."""
    cross_rank: int = 16
    """Rank of a cross layer."""
    calibration: bool = False
    """Whether an isotonic calibration layer follows the logits."""
    calibration_step: float = 0.5
    """Width of a bucket of the calibration layer, in logits."""
    calibration_features: tuple[str, ...] = ()
    """Item features with a separate calibration curve per value."""

    def __post_init__(self) -> None:
        require(self.cross_layers >= 0, f"model.head.cross_layers={self.cross_layers} must be >= 0")
        for name in ("experts", "shared_experts", "levels", "cross_rank"):
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
            f"model.head.calibration_step={self.calibration_step} must be in (0, 25], the range "
            "of logits that are calibrated",
        )
        require(
            self.calibration or not self.calibration_features,
            f"model.head.calibration_features={','.join(self.calibration_features)} but "
            "model.head.calibration=false; set it to true",
        )


def action_groups(
    actions: Sequence[str], groups: Sequence[str], feed: bool
) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the actions of each group.

    Args:
        actions: all actions.
        groups: `HeadConfig.groups`.
        feed: whether empty `groups` stand for LiRank's Feed groups (clicks, and other actions)
            instead of one group per action.

    Raises:
        ConfigError: an action is in no group or in several groups, or is unknown.
    """
    if groups:
        members = [_members(group, actions) for group in groups]
        require(
            sorted(a for group in members for a in group) == list(range(len(actions))),
            f"model.head.groups={join_list(groups)} must contain each of model.actions="
            f"{join_list(actions)} once",
        )
        return tuple(members)
    if not feed:
        return tuple((a,) for a in range(len(actions)))
    clicks = tuple(a for a, name in enumerate(actions) if name in CLICKS)
    others = tuple(a for a in range(len(actions)) if a not in clicks)
    return tuple(group for group in (clicks, others) if group)


def _members(group: str, actions: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the actions in `a+b`, or (-1,) if one is unknown.

    Names of actions may contain a plus sign.
    """
    if group in actions:
        return (actions.index(group),)
    for end, sign in reversed(list(enumerate(group))):
        if sign == "+" and group[:end] in actions:
            rest = _members(group[end + 1 :], actions)
            if -1 not in rest:
                return (actions.index(group[:end]), *rest)
    return (-1,)
