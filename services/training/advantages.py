"""What a group says about its members.

A_i = (r_i − mean r) / (std r + 1e-4) within the completions of one question (DeepSeekMath,
2402.03300, section 4.1.2; R1 v2, equation 3). Unscorable members are no part of mean and
deviation and get advantage 0, as in TRL. A group whose members all earn the same is dead: it
teaches nothing.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from trl.trainer.utils import nanstd


class GroupAdvantages(NamedTuple):
    """Advantages of all rows, and the shares of groups that are dead."""

    advantages: torch.Tensor
    """``(groups · size,)``"""
    dead_right: float
    """Share of groups with equal rewards above the mean reward of the batch, or all correct."""
    dead_wrong: float
    """Share of the other groups with equal rewards."""


def group_advantages(
    rewards: Sequence[float | None],
    correct: Sequence[bool],
    group_size: int,
    scale: Literal["group", "batch", "none"],
) -> GroupAdvantages:
    """Advantages from rewards that lie group by group; None is unscorable."""
    table = torch.tensor([float("nan") if r is None else float(r) for r in rewards])
    table = table.view(-1, group_size)
    centred = table - torch.nanmean(table, dim=1, keepdim=True)
    spread = nanstd(table, dim=1, keepdim=True)
    if scale == "group":
        scaled = centred / (spread + 1e-4)
    elif scale == "batch":
        scaled = centred / (nanstd(table) + 1e-4)
    else:
        scaled = centred
    dead = torch.nan_to_num(spread).squeeze(1) < 1e-8
    right = torch.tensor(correct).view(-1, group_size).float().mean(1) > 0.5
    return GroupAdvantages(
        torch.nan_to_num(scaled, nan=0.0).flatten(),
        dead_right=(dead & right).float().mean().item(),
        dead_wrong=(dead & ~right).float().mean().item(),
    )
