"""Unfreezing in stages, from the head down, with smaller rates further down (Howard & Ruder, ACL 2018).

Their "gradual unfreezing" and "discriminative fine-tuning", made for language models, on the blocks of a U-Net.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from tlseg_jax.runtime.choose import choose
from tlseg_jax.transfer.freeze import get_rules, label_parameters


@dataclasses.dataclass(frozen=True)
class BlockGroup:
    """Blocks that start to train together.

    Attributes:
      name: label of its parameters in the optimiser.
      pattern: of its blocks' names, from their start.
      rate: factor of the learning rate.
    """

    name: str
    pattern: str
    rate: float


STEP_DOWN = 2.6
"""Each group's rate is the one's above over this (Howard & Ruder, section 3.2)."""

GROUPS: tuple[BlockGroup, ...] = (
    BlockGroup("head", r"head$", 1.0),
    BlockGroup("decoder", r"(decoder|up)_\d+$|final$", 1 / STEP_DOWN),
    BlockGroup("encoder", r".*", 1 / STEP_DOWN**2),
)
"""In the order of unfreezing; a block belongs to the first whose pattern matches, the bottleneck to the encoder."""

UNFREEZING: Mapping[str, bool] = {"at_once": False, "staged": True}
"""Name -> whether there are stages."""


@dataclasses.dataclass(frozen=True, eq=False)
class UnfreezingStage:
    """Part of a run.

    Attributes:
      last_step: steps done when it ends.
      labels: tree of "trained" and "frozen", as `label_parameters` gives it.
    """

    last_step: int
    labels: dict[str, Any]


def first_steps(steps: int) -> tuple[int, ...]:
    """Steps done when each of `GROUPS` begins to train: the beginnings of equal parts of the run."""
    return tuple(steps * i // len(GROUPS) for i in range(len(GROUPS)))


def label_groups(labels: Mapping[str, Any]) -> dict[str, Any]:
    """A tree like `labels` with the group's name in place of "trained"."""
    out = {
        path: GROUPS[_number(path[0])].name if part == "trained" else part
        for path, part in flatten_dict(labels).items()
    }
    return unflatten_dict(out)  # type: ignore[no-any-return]


def stages(
    params: Mapping[str, Any], steps: int, freeze: str, unfreezing: str = "staged"
) -> tuple[UnfreezingStage, ...]:
    """The stages of a run, the last of which ends at `steps`.

    A parameter that `freeze` keeps is frozen in all of them; what is trained in one is trained in the next.

    Args:
      params: of the network; arrays or shapes.
      steps: length of the run.
      freeze: a name of `freeze.FREEZING`.
      unfreezing: "staged", or "at_once" for a single stage.

    Returns:
      One stage for each set of trained parameters: fewer than three where `freeze` leaves a group nothing to
      train, or where the run is too short for a part of it to have a step.

    Raises:
      InputError: no freezing or unfreezing has that name, or the freezing does not fit the network.
    """
    last = label_parameters(params, get_rules(freeze))
    if not choose("unfreezing", unfreezing, UNFREEZING):
        return (UnfreezingStage(steps, last),)
    ends = (*first_steps(steps)[1:], steps)
    found: list[UnfreezingStage] = []
    for number, end in enumerate(ends):
        labels = _up_to(last, number)
        if "trained" not in flatten_dict(labels).values() or end <= (found[-1].last_step if found else 0):
            continue
        if found and found[-1].labels == labels:
            found.pop()
        found.append(UnfreezingStage(end, labels))
    return tuple(found)


def _up_to(labels: Mapping[str, Any], number: int) -> dict[str, Any]:
    """`labels` with the groups after `number` frozen."""
    out = {path: part if _number(path[0]) <= number else "frozen" for path, part in flatten_dict(labels).items()}
    return unflatten_dict(out)  # type: ignore[no-any-return]


def _number(block: str) -> int:
    return next(i for i, g in enumerate(GROUPS) if re.match(g.pattern, block))
